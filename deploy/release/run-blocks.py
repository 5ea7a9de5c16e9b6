"""Writes each `run` step of the workflows to a file, as the runner would run it: python run-blocks.py DIRECTORY FILE... Needs PyYAML."""

import sys
from pathlib import Path

import yaml

directory, *files = map(Path, sys.argv[1:])
count = 0
for file in files:
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
    for job, content in jobs.items():
        for number, step in enumerate(content["steps"]):
            if "run" in step:
                # GitHub uses these options if `shell: bash` is set.
                text = "#!/usr/bin/env bash\nset -eo pipefail\n" + step["run"]
                (directory / f"{file.stem}-{job}-{number}.sh").write_text(text, encoding="utf-8")
                count += 1
if not count:
    sys.exit("error: the workflows have no run step")
