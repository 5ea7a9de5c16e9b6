"""Compares the chart's copies, names and documentation with the rest of the repository. Each check returns its findings."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import yaml

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHART = HERE / "twinsync"

# The chart's copy of a file, and the original.
COPIES = {
    "files/default.toml": "config/default.toml",
    "files/twinsync.rules.yml": "deploy/prometheus/twinsync.rules.yml",
    "files/twinsync.json": "deploy/grafana/twinsync.json",
}


class Repeated(ValueError):
    """A key that occurs twice in a mapping. Kubernetes refuses this, and PyYAML does not."""


class Loader(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise Repeated(f"the key {key!r} occurs twice in one mapping, {node.start_mark}")
        return super().construct_mapping(node, deep)


# Keys of an entry of counts, the only setting that is a list. config/default.toml has no entry; it describes the keys in a comment.
COUNT = ("name", "from", "where", "group_by")


def leaves(table: dict, prefix: str = "") -> dict[str, object]:
    found = {}
    for key, value in table.items():
        if prefix + key == "counts":
            found |= {f"counts.{place}.{name}": value for place, count in enumerate(value) for name, value in count.items()}
            continue
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


DEFAULT_TEXT = (ROOT / "config/default.toml").read_text()
SETTINGS = leaves(tomllib.loads(DEFAULT_TEXT))


def secret_settings() -> set[str]:
    """The settings that config/default.toml marks as secret. Without blob.container_url, which is a secret only if it has a signature."""
    section, marked, found = "", False, set()
    for line in DEFAULT_TEXT.splitlines():
        if header := re.match(r"\[([a-z_.]+)\]", line):
            section = header[1]
        elif line.startswith("#"):
            marked = marked or line.startswith("# Secret.")
        elif key := re.match(r"([a-z_]+) =", line):
            # A mark applies to all keys until the next blank line, as in [cosmos].
            if marked:
                found.add(f"{section}.{key[1]}")
        else:
            marked = False
    return found


def copies(write: bool) -> list[str]:
    found = []
    for copy, original in COPIES.items():
        if write:
            shutil.copyfile(ROOT / original, CHART / copy)
        if not (CHART / copy).exists() or (CHART / copy).read_bytes() != (ROOT / original).read_bytes():
            found.append(f"twinsync/{copy} differs from {original}: run deploy/helm/check --write")
    stray = {path.name for path in (CHART / "files").iterdir()} - {Path(copy).name for copy in COPIES}
    return found + [f"twinsync/files/{name} has no original in chart.py: remove it, or add it to COPIES" for name in sorted(stray)]


def settings_that_exist() -> list[str]:
    """Every path and variable of a setting that the chart's files contain exists in config/default.toml."""
    found = []
    sections = "|".join(sorted({path.split(".")[0] for path in SETTINGS}))
    # Excludes parts of longer names, and host names such as blob.core.windows.net.
    path = re.compile(rf"(?<![\w./@-])(?:\$settings\.|\$written\.)?((?:{sections})\.(?!core\.|toml)[a-z_]+(?:\.[a-z_]+)*)(?![\w-]|\.[a-z])")
    variable = re.compile(r"TWINSYNC__([A-Z][A-Z_]*[A-Z])")
    known = set(SETTINGS) | {path.rsplit(".", 1)[0] for path in SETTINGS}
    files = [*CHART.glob("templates/**/*"), CHART / "values.yaml", CHART / "README.md", *HERE.glob("tests/*.yaml")]
    names = 0
    for file in files:
        if not file.is_file():
            continue
        text = file.read_text()
        used = {match for match in path.findall(text)}
        used |= {name.lower().replace("__", ".") for name in variable.findall(text) if name != "SECTION__KEY"}
        names += len(used)
        found += [f"{file.relative_to(HERE)}: {name} is not a setting" for name in sorted(used - known)]
    if names < 40:
        found.append(f"only {names} names of settings were found: the patterns of this check no longer match")
    listed = set(re.search(r'"twinsync.secretSettings" -}}\n(.*)\n', (CHART / "templates/_settings.tpl").read_text())[1].split())
    if listed != secret_settings():
        found.append(f"twinsync.secretSettings and the marks in config/default.toml differ: {sorted(listed ^ secret_settings())}")
    return found


def config_schema() -> dict:
    """The schema of `config`, derived from config/default.toml. Secrets are not allowed there."""
    secret = secret_settings()

    def table(values: dict, prefix: str) -> dict:
        properties = {}
        for key, value in values.items():
            path = prefix + key
            if isinstance(value, dict):
                properties[key] = table(value, path + ".")
            elif path in secret:
                properties[key] = {"type": "string"}  # refused by the template, whose message says what to do instead
            else:
                properties[key] = {"type": "string" if isinstance(value, str) else "integer"}
        return {"type": "object", "additionalProperties": False, "properties": properties}

    text = {"type": "string"}
    either = {"anyOf": [text, {"type": "array", "items": text}]}
    count = {key: either if key == "group_by" else text for key in COUNT}
    made = table(tomllib.loads(DEFAULT_TEXT), "")
    made["properties"]["counts"] = {
        "type": "array",
        "items": {"type": "object", "additionalProperties": False, "required": ["name"], "properties": count},
    }
    return made


def schema(write: bool) -> list[str]:
    path = CHART / "values.schema.json"
    written = json.loads(path.read_text())
    if write:
        written["properties"]["config"] = config_schema()
        path.write_text(json.dumps(written, indent=2) + "\n")
    found = []
    if written["properties"]["config"] != config_schema():
        found.append("values.schema.json does not match the settings of config/default.toml: run deploy/helm/check --write")

    def compare(values: dict, properties: dict, prefix: str) -> None:
        for key in sorted(values.keys() ^ properties.keys() - {"global"}):
            found.append(f"{prefix}{key} is in only one of values.yaml and values.schema.json")
        for key, value in values.items():
            inner = properties.get(key, {})
            inner = written["definitions"][inner["$ref"].rsplit("/", 1)[1]] if "$ref" in inner else inner
            if isinstance(value, dict) and "properties" in inner and prefix + key != "config":
                if inner.get("additionalProperties") is not False:
                    found.append(f"values.schema.json allows unknown keys in {prefix}{key}: set additionalProperties to false")
                compare(value, inner["properties"], f"{prefix}{key}.")

    compare(yaml.load((CHART / "values.yaml").read_text(), Loader), written["properties"], "")
    return found


def documented_values() -> tuple[list[tuple[list[str], str]], list[str]]:
    """The values with their comments, grouped by comment; and the findings."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    groups: list[tuple[list[str], str]] = []
    found: list[str] = []
    stack: list[tuple[int, str]] = []
    comment: list[str] = []
    fresh = False  # whether there is a comment between this key and the previous one
    opaque = None  # the indentation of a value that is a list or free form, whose content needs no comments
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            comment, fresh = [], True
            continue
        if line.lstrip().startswith("#"):
            if not fresh:
                comment = []
            comment.append(line.lstrip("# "))
            fresh = True
            continue
        if line.lstrip().startswith("- ") or (opaque is not None and indent > opaque):
            continue
        key = re.match(r"\s*([\w./-]+):(.*)$", line)
        if not key:
            found.append(f"values.yaml:{number}: this check cannot parse the line")
            continue
        opaque = None
        stack = [(at, name) for at, name in stack if at < indent] + [(indent, key[1])]
        path = ".".join(name for _, name in stack)
        following = next((rest for rest in lines[number:] if rest.strip()), "")
        inside = len(following) - len(following.lstrip()) > indent
        if not key[2].strip() and inside and not following.lstrip().startswith("- "):
            if path != "dashboard.labels":
                # A heading, whose values have their own comments.
                fresh = False
                continue
        if not key[2].strip() and inside:
            opaque = indent
        if fresh and comment:
            groups.append(([path], " ".join(comment)))
        elif not fresh and comment and groups:
            groups[-1][0].append(path)
        else:
            found.append(f"values.yaml:{number}: {path} has no comment")
        fresh = False
    return groups, found


def shown(value: object) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def readme(write: bool) -> list[str]:
    groups, found = documented_values()
    defaults = yaml.load((CHART / "values.yaml").read_text(), Loader)

    def default(path: str) -> object:
        value = defaults
        for key in path.split("."):
            value = value[key]
        return value

    rows = ["| value | default | meaning |", "|---|---|---|"]
    for paths, comment in groups:
        names = ", ".join(f"`{path}`" for path in paths)
        values = [default(path) for path in paths]
        same = len({json.dumps(value) for value in values}) == 1
        short = "see values.yaml" if any(isinstance(value, (dict, list)) and value for value in values) else None
        each = short or (shown(values[0]) if same else ", ".join(map(shown, values)))
        cell = comment.replace("|", "\\|")
        rows.append(f"| {names} | {each} | {cell} |")
    table = "\n".join(rows)
    path = CHART / "README.md"
    text = path.read_text()
    begin, end = "<!-- values: made by deploy/helm/check --write -->", "<!-- values: end -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    whole = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    if write:
        path.write_text(whole)
    elif whole != text:
        found.append("the table in twinsync/README.md does not match values.yaml: run deploy/helm/check --write")
    return found


def links() -> list[str]:
    """Every file that README.md links to exists in the repository."""
    found = []
    readme = CHART / "README.md"
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", readme.read_text()):
        target = (readme.parent / link).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            found.append(f"twinsync/README.md links to {link}, which is not in the repository")
    return found
