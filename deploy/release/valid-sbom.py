"""Validates bills of materials with the schema of CycloneDX 1.6: python valid-sbom.py FILE... Needs cyclonedx-python-lib[json-validation]."""

import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

validator = JsonStrictValidator(SchemaVersion.V1_6)
bad = 0
for name in sys.argv[1:]:
    error = validator.validate_str(Path(name).read_text(encoding="utf-8"))
    # Only the first line describes the error; the others contain the whole schema.
    print(f"{Path(name).name}: {str(error.data).splitlines()[0] if error else 'valid'}")
    bad += error is not None
if len(sys.argv) < 2:
    sys.exit("error: no file is named")
sys.exit(1 if bad else 0)
