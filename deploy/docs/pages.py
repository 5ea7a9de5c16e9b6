"""Parses links in Markdown and HTML for the checks of the documentation. Needs Python 3.11 and no packages."""

import re
import subprocess
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

FENCE = re.compile(r"^\s{0,3}(```+|~~~+)")
HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
INLINE_CODE = re.compile(r"(`+)(?:(?!\1).)+?\1")
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target><[^>]*>|[^()\s]+(?:\([^()\s]*\)[^()\s]*)*)(?:\s+\"[^\"]*\")?\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s+(?P<target>\S+)")
EXTERNAL = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*:|//)")


def root() -> Path:
    return Path(__file__).resolve().parents[2]


def tracked(directory: Path, *patterns: str) -> list[Path]:
    """Files that git tracks or does not ignore, so without build output."""
    command = ["git", "-C", str(directory), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0")
    return sorted({directory / name for name in names if name and (directory / name).is_file()})


def prose(text: str) -> list[tuple[int, str]]:
    """Lines outside code blocks, with their numbers."""
    lines, fence = [], None
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence is None and mark:
            fence = mark[1][0] * 3
        elif fence is not None:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = None
        else:
            lines.append((number, line))
    return lines


def slug(heading: str, anchors: dict[str, int]) -> str:
    """The anchor that GitHub gives a heading."""
    text = LINK.sub(lambda link: link["text"], heading).replace("`", "").strip().lower()
    kept = "".join(c for c in text if c in "-_ " or unicodedata.category(c)[0] in "LN")
    name = kept.replace(" ", "-")
    count = anchors.get(name, 0)
    anchors[name] = count + 1
    return name if count == 0 else f"{name}-{count}"


def anchors_of(text: str) -> set[str]:
    seen: dict[str, int] = {}
    found = set()
    for _, line in prose(text):
        if heading := HEADING.match(line):
            found.add(slug(heading[2], seen))
        found.update(re.findall(r"<a\s+(?:id|name)=\"([^\"]+)\"", line))
    return found


def links_of(text: str) -> list[tuple[int, str]]:
    """Targets of links and images, with the numbers of their lines."""
    found = []
    for number, line in prose(text):
        without_code = INLINE_CODE.sub("", line)
        # Inline code is removed first, because brackets in code are not links.
        found += [(number, link["target"].strip("<>")) for link in LINK.finditer(without_code)]
        if reference := REFERENCE.match(without_code):
            found.append((number, reference["target"].strip("<>")))
    return found


class Page(HTMLParser):
    """Targets and ids of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[tuple[int, str]] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.ids.update(values[name] for name in ("id", "name") if name in values)
        # Also checks elements such as <link rel="canonical">, which readers do not see.
        for name in ("href", "src"):
            if name in values:
                self.targets.append((self.getpos()[0], values[name]))


def parts(target: str) -> tuple[str, str]:
    """Path and anchor of a target."""
    path, _, anchor = target.partition("#")
    return unquote(path.partition("?")[0]), unquote(anchor)
