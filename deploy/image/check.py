"""Checks the text of the Dockerfiles: check.py ROOT. Each rule is tested with a planted mistake, which it has to find."""

import pathlib
import re
import sys
import tomllib

HERE = pathlib.Path(__file__).parent
DIGEST = re.compile(r"^[a-z0-9./-]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}$")


def instructions(text: str) -> list[tuple[str, str]]:
    """Instructions with their arguments. Continued lines are joined, and comments are removed."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(found: list[tuple[str, str]]) -> tuple[dict[str, str], list[list[tuple[str, str]]]]:
    """The names of the stages with their base images, and the instructions of each stage."""
    names, each = {}, []
    for word, rest in found:
        if word == "FROM":
            base, _, name = re.sub(r"\s+", " ", rest).partition(" AS ")
            names[name or f"stage {len(each)}"] = base
            each.append([])
        elif each:
            each[-1].append((word, rest))
    return names, each


def problems_of(text: str, members: list[str], version: str) -> list[str]:
    """Findings in the Dockerfile of twinsync."""
    problems = bases(text)
    names, each = stages(instructions(text))
    last = dict(each[-1])
    rust = [base for base in names.values() if base.startswith("rust:")]
    if not all(base.startswith(f"rust:{version}-") for base in rust):
        problems.append(f"it builds with {rust}, but rust-toolchain.toml has {version}")
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", last.get("USER", "")):
        problems.append("USER is root or not a number: Kubernetes needs a number to verify that it is not root")
    if "VOLUME" in last:
        problems.append("VOLUME: an anonymous volume seems persistent, but is deleted with the container")
    for wanted in ["HEALTHCHECK", "ENTRYPOINT", "STOPSIGNAL", "EXPOSE", "LABEL"]:
        if wanted not in last:
            problems.append(f"{wanted} is missing")
    if last.get("STOPSIGNAL") != "SIGTERM":
        problems.append("STOPSIGNAL is not SIGTERM, on which twinsync drains")
    for word in ["ENTRYPOINT", "CMD"]:
        if not last.get(word, "[").startswith("["):
            problems.append(f"{word} is in shell form, but the image has no shell")
    build = [rest for word, rest in each[0] if word == "COPY"]
    for member in members:
        if not any(f"{member}/Cargo.toml" in rest for rest in build):
            problems.append(f"the manifest of {member} is not copied, so cargo would not find this member of the workspace")
    if "cargo auditable build" not in text:
        problems.append("cargo auditable is not used, so the binary does not list its dependencies")
    return problems


def bases(text: str) -> list[str]:
    """Findings for base images that are not pinned."""
    names, _ = stages(instructions(text))
    own = set(names)
    return [f"the base image {base} has no digest" for base in names.values() if base != "scratch" and base not in own and not DIGEST.match(base)]


SLIPS = [
    (r"(FROM rust:[^@]+)@sha256:[0-9a-f]+", r"\1", "has no digest"),
    (r"rust:[0-9.]+-", "rust:1.0-", "rust-toolchain.toml"),
    (r"USER 10001:10001", "USER root", "USER"),
    (r"EXPOSE 8080", "EXPOSE 8080\nVOLUME /var/lib/twinsync", "VOLUME"),
    (r"STOPSIGNAL SIGTERM", "STOPSIGNAL SIGINT", "SIGTERM"),
    (r"HEALTHCHECK [^\n]*", "", "HEALTHCHECK"),
    (r"ENTRYPOINT \[[^\n]*", "ENTRYPOINT /usr/local/bin/twinsync", "shell"),
    (r"COPY crates/devkit/Cargo.toml crates/devkit/\n", "", "devkit"),
    (r"cargo auditable build", "cargo build", "dependencies"),
]


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    manifest = tomllib.loads((root / "Cargo.toml").read_text())
    members = [member for member in manifest["workspace"]["members"] if member != "."]
    version = tomllib.loads((root / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    version = ".".join(version.split(".")[:2])
    text = (root / "Dockerfile").read_text()
    problems = [f"Dockerfile: {problem}" for problem in problems_of(text, members, version)]
    for other in sorted(root.glob("deploy/**/*Dockerfile")):
        problems += [f"{other.relative_to(root)}: {problem}" for problem in bases(other.read_text())]
    # Files that are copied from the checkout exist, and .dockerignore includes them.
    ignored = (root / ".dockerignore").read_text().split()
    for word, rest in instructions(text):
        if word == "COPY" and "--from=" not in rest:
            for path in rest.split()[:-1]:
                if not (root / path).exists():
                    problems.append(f"Dockerfile: {path} does not exist")
                if f"!{path}" not in ignored:
                    problems.append(f".dockerignore: excludes {path}, which the build needs")
    for pattern, slip, expected in SLIPS:
        slipped, times = re.subn(pattern, slip, text)
        if not times:
            problems.append(f"check.py: the Dockerfile does not contain {pattern!r}: update SLIPS")
        elif not any(expected in problem for problem in problems_of(slipped, members, version)):
            problems.append(f"check.py: does not report the planted mistake {slip!r}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"Dockerfile: {len(SLIPS)} of {len(SLIPS)} planted mistakes found")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
