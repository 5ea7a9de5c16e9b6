"""Common functions of the release scripts: the version of the workspace, and the sections of the changelog. Needs Python 3.11 and no
packages."""

import re
import tomllib
from pathlib import Path

# A version in Cargo's format, without build metadata, because the tag of an image cannot contain it.
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?")
# `## 0.2.0` or `## [0.2.0]`, optionally followed by other text, such as a date.
HEADING = re.compile(r"^## \[?(?P<name>[^\]\s]+)\]?(\s.*)?$")
FENCE = re.compile(r"^\s*(```|~~~)")
# A link in the text, without a scheme, and not to an anchor of the same page.
RELATIVE_LINK = re.compile(r"(?P<text>\]\()(?P<target>(?![a-zA-Z][a-zA-Z0-9+.-]*:|#|/)[^)\s]+)(?P<end>\))")


class Refused(Exception):
    """The reason why this cannot be released, as one line."""


def workspace_version(root: Path) -> str:
    manifest = tomllib.loads((root / "Cargo.toml").read_text(encoding="utf-8"))
    return manifest["workspace"]["package"]["version"]


def sections(changelog: str) -> dict[str, str]:
    """The text below each heading of the second level. Lines in code blocks are not headings."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    fenced = False
    for line in changelog.splitlines():
        if FENCE.match(line):
            fenced = not fenced
        heading = None if fenced else HEADING.match(line)
        if heading:
            name = heading["name"]
            if name in found:
                raise Refused(f"CHANGELOG.md has two sections {name}")
            lines = found[name] = []
        elif lines is not None:
            lines.append(line)
    return {name: "\n".join(text).strip() for name, text in found.items()}


def section(root: Path, version: str) -> str:
    """The changelog's section of a version."""
    found = sections((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if version not in found:
        raise Refused(f"CHANGELOG.md has no section \"## {version}\"; it has: {', '.join(found) or 'none'}")
    if not found[version]:
        raise Refused(f"the section {version} of CHANGELOG.md is empty")
    return found[version]


def absolute_links(text: str, base: str) -> str:
    """Replaces relative links by links to the tagged tree, because relative links do not work on the page of a release."""
    return RELATIVE_LINK.sub(lambda link: f"{link['text']}{base.rstrip('/')}/{link['target']}{link['end']}", text)


def version_of_tag(root: Path, tag: str) -> str:
    """The version of a tag. Raises `Refused` if it may not be released."""
    if not tag.startswith("v") or not VERSION.fullmatch(tag[1:]):
        raise Refused(f"the tag {tag!r} is not \"v\" and a version such as 1.2.3 or 1.2.3-rc.1")
    version, workspace = tag[1:], workspace_version(root)
    if version != workspace:
        raise Refused(f"the tag has the version {version}, but Cargo.toml has {workspace}")
    section(root, version)
    return version
