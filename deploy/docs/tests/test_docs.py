"""Tests of the documentation checks: python3 -m unittest discover deploy/docs/tests"""

import subprocess
import sys
import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))


def script(name: str):
    loader = SourceFileLoader(name, str(HERE / name))
    module = module_from_spec(spec_from_loader(name, loader))
    sys.modules[name] = module
    loader.exec_module(module)
    return module


import pages  # noqa: E402

commands = script("commands")


class Anchors(unittest.TestCase):
    def test_they_are_those_of_github(self) -> None:
        text = "# A title\n## `code` and *stars*\n## What, now?\n## What, now?\n## [A link](x.md) here\n```\n# none\n```\n"
        self.assertEqual(pages.anchors_of(text), {"a-title", "code-and-stars", "what-now", "what-now-1", "a-link-here"})


class Links(unittest.TestCase):
    def test_code_holds_none(self) -> None:
        text = "[a](b.md) `[c](d.md)` ![e](f.png \"g\") [`h`](<i j.md>)\n~~~\n[k](l.md)\n~~~\n[m]: n.md\n"
        self.assertEqual([target for _, target in pages.links_of(text)], ["b.md", "f.png", "i j.md", "n.md"])

    def check(self, files: dict[str, str]) -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(["git", "init", "--quiet", directory], check=True)
            for name, text in files.items():
                path = Path(directory, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            ran = subprocess.run([str(HERE / "links"), "--root", directory], capture_output=True, text=True, check=False)
            return ran.returncode, ran.stdout

    def test_what_leads_somewhere_passes(self) -> None:
        files = {"README.md": "# T\n[a](docs/a.md#there) [b](docs) [c](#t) [d](https://example.org/x)", "docs/a.md": "## There\n[up](../README.md)"}
        self.assertEqual(self.check(files)[0], 0)

    def test_what_leads_nowhere_is_found(self) -> None:
        for link, why in [("b.md", "does not exist"), ("a.md#here", "no anchor"), ("../x", "out of the checkout"), ("/a.md", "from the root")]:
            code, said = self.check({"a.md": f"## There\n[x]({link})"})
            self.assertEqual(code, 1, link)
            self.assertIn(why, said)


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.known = commands.Source(pages.root()).commands(["cli"])

    def bad(self, line: str) -> list[str]:
        found = commands.invocations(line)
        self.assertTrue(found, line)
        return [why for words in found for why in commands.complaints(words, self.known)]

    def test_what_exists_passes(self) -> None:
        for line in [
            "twinsync run --config a.toml --config=b.toml",
            "A=b twinsync audit --sample 5 --report FILE   # and more",
            "twinsync resync --device pump-7 --dry-run && twinsync status --watch",
            "kubectl exec deploy/x -- twinsync check --connect",
            "twinsync deadletters show twin-changes/3/4711 --json",
            "twinsync --version",
        ]:
            self.assertEqual(self.bad(line), [], line)

    def test_what_does_not_exist_is_found(self) -> None:
        for line in [
            "twinsync start",
            "twinsync run --dry-run",
            "twinsync audit now",
            "twinsync deadletters remove",
            "twinsync check --connect=yes",
            "x && twinsync backfill --resume",
            "twinsync deadletters list --filter x",
        ]:
            self.assertNotEqual(self.bad(line), [], line)

    def test_words_in_prose_are_no_command(self) -> None:
        self.assertEqual(commands.invocations("az identity create --name twinsync"), [])


class Keys(unittest.TestCase):
    def test_keys_sections_and_variables(self) -> None:
        keys = commands.Keys(pages.root())
        page = Path("docs/x.md")
        for code in ["cosmos.endpoint", "[iothub]", "eventhubs.lifecycle.hub", "checkpoint.store = \"blob\"", "sync.state", "[eventhubs.lifecycle]"]:
            self.assertIsNone(keys.code(code, page), code)
        for code in ["cosmos.endpont", "[iothubs]", "checkpoint.kind = \"blob\"", "eventhubs.hub"]:
            self.assertIsNotNone(keys.code(code, page), code)
        self.assertIsNone(keys.code("eventhubs.hub", Path("docs/check.md")), "the name of a check")
        self.assertIsNone(keys.variable("TWINSYNC__EVENTHUBS__TWIN_CHANGES__HUB"))
        self.assertIsNotNone(keys.variable("TWINSYNC__EVENTHUB__NAMESPACE"))
        self.assertIsNone(keys.variable("TWINSYNC__COUNTS__0__GROUP_BY"))
        self.assertIsNotNone(keys.variable("TWINSYNC__COUNTS__0__GROUP"))


if __name__ == "__main__":
    unittest.main()
