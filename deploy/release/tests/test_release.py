"""Tests of the scripts of a release: python3 -m unittest discover deploy/release/tests"""

import json
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE))
import release  # noqa: E402

CHANGELOG = """# Changelog

## Unreleased

- What comes.

## [0.2.0] - 2031-05-04

- One, see [docs/cost.md](docs/cost.md#where) and [elsewhere](https://example.com/x) and [here](#there).

```md
## 9.9.9
```

### A part

- Two.

## 0.1.0

"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(HERE / script), *arguments], capture_output=True, text=True, check=False)


class Checkout(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.write("0.2.0", CHANGELOG)

    def write(self, version: str, changelog: str) -> None:
        (self.root / "Cargo.toml").write_text(f'[workspace.package]\nversion = "{version}"\n', encoding="utf-8")
        (self.root / "CHANGELOG.md").write_text(changelog, encoding="utf-8")

    def test_a_section_ends_where_the_next_one_begins(self) -> None:
        text = release.section(self.root, "0.2.0")
        self.assertTrue(text.startswith("- One") and text.endswith("- Two."), text)
        self.assertIn("### A part", text)
        self.assertEqual(release.section(self.root, "Unreleased"), "- What comes.")

    def test_a_heading_in_a_code_block_is_none(self) -> None:
        self.assertEqual(list(release.sections(CHANGELOG)), ["Unreleased", "0.2.0", "0.1.0"])

    def test_a_section_that_is_missing_empty_or_there_twice_is_refused(self) -> None:
        for version in ["0.3.0", "0.1.0", "9.9.9"]:
            with self.assertRaises(release.Refused, msg=version):
                release.section(self.root, version)
        with self.assertRaises(release.Refused):
            release.sections(CHANGELOG + "## 0.2.0\n\n- Again.\n")

    def test_relative_links_lead_into_the_tagged_tree_and_others_stay(self) -> None:
        text = release.absolute_links(release.section(self.root, "0.2.0"), "https://example.org/tree/")
        self.assertIn("](https://example.org/tree/docs/cost.md#where)", text)
        self.assertIn("](https://example.com/x)", text)
        self.assertIn("](#there)", text)

    def test_a_tag_is_v_and_the_version_of_the_workspace(self) -> None:
        self.assertEqual(release.version_of_tag(self.root, "v0.2.0"), "0.2.0")
        for tag in ["0.2.0", "v0.2", "v0.2.1", "v0.2.0-rc.1", "v00.2.0", "v0.2.0+build", "v0.2.0;id", "vv0.2.0", "v"]:
            with self.assertRaises(release.Refused, msg=tag):
                release.version_of_tag(self.root, tag)

    def test_a_release_candidate_needs_a_section_of_its_own(self) -> None:
        self.write("0.2.0-rc.1", CHANGELOG)
        with self.assertRaises(release.Refused):
            release.version_of_tag(self.root, "v0.2.0-rc.1")
        self.write("0.2.0-rc.1", CHANGELOG.replace("[0.2.0]", "[0.2.0-rc.1]"))
        self.assertEqual(release.version_of_tag(self.root, "v0.2.0-rc.1"), "0.2.0-rc.1")

    def test_the_scripts_print_and_refuse(self) -> None:
        printed = run("check-tag", "v0.2.0", "--root", str(self.root))
        self.assertEqual((printed.returncode, printed.stdout), (0, "0.2.0\n"))
        refused = run("check-tag", "v0.3.0", "--root", str(self.root))
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertIn("0.2.0", refused.stderr)
        refused = run("notes", "0.3.0", "--root", str(self.root))
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertIn("https://h/docs/cost.md", run("notes", "0.2.0", "--base", "https://h", "--root", str(self.root)).stdout)


class Files(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name) / "out"
        self.directory.mkdir()

    def test_sums_are_of_all_files_and_not_of_themselves(self) -> None:
        for name in ["b", "a"]:
            (self.directory / name).write_text(name, encoding="utf-8")
        for _ in range(2):
            self.assertEqual(run("sums", str(self.directory)).returncode, 0)
            lines = (self.directory / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
            self.assertEqual([line.split()[1] for line in lines], ["a", "b"])
        (self.directory / "a").write_text("changed", encoding="utf-8")
        checked = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=self.directory, capture_output=True, check=False)
        self.assertNotEqual(checked.returncode, 0)

    def test_sums_of_nothing_are_refused(self) -> None:
        self.assertEqual(run("sums", str(self.directory)).returncode, 1)

    def test_an_archive_belongs_to_root_and_has_the_time_of_the_commit(self) -> None:
        binary = self.directory / "twinsync"
        binary.write_text("binary", encoding="utf-8")
        packed = run("package", str(binary), "0.2.0", "x86_64-unknown-linux-gnu", str(self.directory))
        self.assertEqual(packed.returncode, 0, packed.stderr)
        with tarfile.open(packed.stdout.strip()) as archive:
            entries = archive.getmembers()
        names = [entry.name for entry in entries]
        self.assertIn("twinsync-0.2.0-x86_64-unknown-linux-gnu/twinsync", names)
        self.assertIn("twinsync-0.2.0-x86_64-unknown-linux-gnu/SECURITY.md", names)
        self.assertEqual({(entry.uid, entry.gid) for entry in entries}, {(0, 0)})
        self.assertEqual(len({entry.mtime for entry in entries}), 1)
        self.assertEqual(run("package", "missing", "0.2.0", "x", str(self.directory)).returncode, 1)


class Bill(unittest.TestCase):
    """Of the checkout itself."""

    @classmethod
    def setUpClass(cls) -> None:
        printed = run("sbom", "--target", "x86_64-unknown-linux-gnu")
        if printed.returncode:
            raise AssertionError(printed.stderr)
        cls.bill = json.loads(printed.stdout)

    def test_it_holds_what_is_shipped_and_not_what_tests_need(self) -> None:
        scopes = {component["name"]: component["scope"] for component in self.bill["components"]}
        for name in ["tokio", "azure_data_cosmos", "openssl-sys", "mimalloc"]:
            self.assertEqual(scopes.get(name), "required", name)
        # A proc macro, and a tool of build scripts.
        for name in ["serde_derive", "cc"]:
            self.assertEqual(scopes.get(name), "excluded", name)
        for name in ["devkit", "proptest", "bench-sync", "chaos", "twinsync"]:
            self.assertNotIn(name, scopes)

    def test_every_component_has_a_checksum_and_a_licence(self) -> None:
        for component in self.bill["components"]:
            self.assertRegex(component["hashes"][0]["content"], "^[0-9a-f]{64}$")
            self.assertTrue(component["licenses"], component["name"])

    def test_dependencies_name_components(self) -> None:
        known = {component["bom-ref"] for component in self.bill["components"]} | {self.bill["metadata"]["component"]["bom-ref"]}
        for dependency in self.bill["dependencies"]:
            self.assertLessEqual({dependency["ref"], *dependency["dependsOn"]}, known)
        self.assertEqual({dependency["ref"] for dependency in self.bill["dependencies"]}, known)

    def test_packages_of_the_image_are_added(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            status = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\nDescription: a library\n Version: none\n"
            for name, version in [("libssl3", "3.0.17-1~deb12u3"), ("libstdc++6", "12.2.0-14+deb12u1")]:
                (Path(directory) / name).write_text(status.format(name, version), encoding="utf-8")
            printed = run("sbom", "--target", "x86_64-unknown-linux-gnu", "--debian", directory)
            (Path(directory) / "broken").write_text("Package: broken\n", encoding="utf-8")
            refused = run("sbom", "--target", "x86_64-unknown-linux-gnu", "--debian", directory)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("is not a package status", refused.stderr)
        bill = json.loads(printed.stdout)
        self.assertEqual(bill["metadata"]["component"]["type"], "container")
        self.assertIn("pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64", [c["purl"] for c in bill["components"]])


if __name__ == "__main__":
    unittest.main()
