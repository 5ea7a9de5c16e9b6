"""Checks the Dockerfiles by reading them: check.py ROOT. Each rule is tried with a slip that it has to find."""

import pathlib
import re
import sys
import tomllib

HERE = pathlib.Path(__file__).parent
DIGEST = re.compile(r"^[a-z0-9./-]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}$")


def instructions(text: str) -> list[tuple[str, str]]:
    """Instruction and arguments, with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(found: list[tuple[str, str]]) -> tuple[dict[str, str], list[list[tuple[str, str]]]]:
    """Names of stages with their bases, and the instructions of each."""
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
    """What is wrong with the Dockerfile of the product."""
    problems = bases(text)
    names, each = stages(instructions(text))
    last = dict(each[-1])
    rust = [base for base in names.values() if base.startswith("rust:")]
    if not all(base.startswith(f"rust:{version}-") for base in rust):
        problems.append(f"it builds with {rust}, and rust-toolchain.toml says {version}")
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", last.get("USER", "")):
        problems.append("USER is no number, or root: Kubernetes cannot see that it is not root")
    if "VOLUME" in last:
        problems.append("VOLUME: an anonymous volume looks as if it lasted")
    for wanted in ["HEALTHCHECK", "ENTRYPOINT", "STOPSIGNAL", "EXPOSE", "LABEL"]:
        if wanted not in last:
            problems.append(f"there is no {wanted}")
    if last.get("STOPSIGNAL") != "SIGTERM":
        problems.append("twinsync drains on SIGTERM")
    for word in ["ENTRYPOINT", "CMD"]:
        if not last.get(word, "[").startswith("["):
            problems.append(f"{word} wants a shell, and there is none")
    build = [rest for word, rest in each[0] if word == "COPY"]
    for member in members:
        if not any(f"{member}/Cargo.toml" in rest for rest in build):
            problems.append(f"the manifest of {member} is not copied: cargo would not find a member of the workspace")
    if "cargo auditable build" not in text:
        problems.append("the binary does not list its dependencies")
    return problems


def bases(text: str) -> list[str]:
    """Bases that are not pinned."""
    names, _ = stages(instructions(text))
    own = set(names)
    return [f"the base {base} has no digest" for base in names.values() if base != "scratch" and base not in own and not DIGEST.match(base)]


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
    # What is copied from the checkout is there, and is let through.
    ignored = (root / ".dockerignore").read_text().split()
    for word, rest in instructions(text):
        if word == "COPY" and "--from=" not in rest:
            for path in rest.split()[:-1]:
                if not (root / path).exists():
                    problems.append(f"Dockerfile: {path} is not there")
                if f"!{path}" not in ignored:
                    problems.append(f".dockerignore: keeps {path} from the build")
    for pattern, slip, expected in SLIPS:
        slipped, times = re.subn(pattern, slip, text)
        if not times:
            problems.append(f"check.py: the Dockerfile has no {pattern!r}")
        elif not any(expected in problem for problem in problems_of(slipped, members, version)):
            problems.append(f"check.py: does not find {slip!r}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"Dockerfile: {len(SLIPS)} of {len(SLIPS)} planted slips found")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
