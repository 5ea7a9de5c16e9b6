"""Checks the Bicep files: run `python -m checks` in deploy/bicep. Prints one line per finding, and exits with 1 if there are findings."""

from __future__ import annotations

import pathlib
import sys

from . import azure, compile, product, source

here = pathlib.Path(__file__).resolve().parent.parent
root = here.parent.parent
paths = sorted([*here.glob("*.bicep"), *here.glob("modules/*.bicep")])
files = {path: source.read(path) for path in paths}
found_by = {"syntax": [found for file in files.values() for found in file.problems]}
if not found_by["syntax"]:
    found_by["names"] = compile.check(files)
    parameters = sorted(here.glob("*.bicepparam"))
    found_by["parameters"] = [found for path in parameters for found in compile.check_parameters(path, files)]
    found_by["properties"] = azure.check(files)
    found_by["product"] = product.check(files, root)
for name, problems in found_by.items():
    print(f"{name}: {f'{len(problems)} findings' if problems else 'ok'}")
    for problem in problems:
        print("  " + problem.replace(f"{here}/", ""))
found = sum(map(len, found_by.values()))
print(f"{len(paths)} Bicep files, {len(list(here.glob('*.bicepparam')))} parameter files, {found} findings")
sys.exit(1 if found else 0)
