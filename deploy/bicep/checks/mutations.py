"""Plants one mistake after the other, and expects the checks to find each. So a check that finds nothing does not pass."""

from __future__ import annotations

import pathlib
import shutil
import sys
import tempfile

from . import azure, compile, product, source

BICEP = "deploy/bicep/"
#: File, correct text, wrong text, and a part of the expected finding.
SLIPS = [
    ("main.bicep", "targetScope = 'resourceGroup'", "targetScope == 'resourceGroup'", "pycep"),
    ("modules/storage.bicep", "kind: 'StorageV2'", "kind = 'StorageV2'", "syntax error"),
    ("main.bicep", "    hubName: hubName\n    skuName", "    hubName: hubname\n    skuName", "hubname is not declared"),
    ("main.bicep", "uniqueString(", "uniqeString(", "pycep"),
    ("main.bicep", "    units: iotHubUnits\n", "", "needs the parameter units"),
    ("main.bicep", "    units: iotHubUnits\n", "    units: iotHubUnits\n    unit: 1\n", "has no parameter unit"),
    ("main.bicep", "    units: iotHubUnits\n", "    units: 900\n", "is not between 1 and 200"),
    ("main.bicep", "cosmos.outputs.endpoint", "cosmos.outputs.endpont", "has no output endpont"),
    ("main.bicep", "modules/cosmos.bicep", "modules/cosmo.bicep", "does not exist"),
    ("main.bicep", "@description('Tags of all resources.')\n", "", "param tags has no description"),
    ("main.bicep", "param iotHubUnits int = 1", "param iotHubUnits int = 0", "is not between 1 and 200"),
    ("main.bicep", "@maxValue(200)\nparam iotHubUnits", "@maxValue(300)\nparam iotHubUnits", "maxValue of iotHubUnits"),
    ("main.bicep", "var onAks = ", "var unused = true\nvar onAks = ", "var unused is not used"),
    ("modules/app-service.bicep", "priority: 100 + index", "priority: 100 + indx", "indx is not declared"),
    ("main.aks.example.bicepparam", "param hosting = 'aks'", "param hosting = 'gke'", "is not one of"),
    ("main.aks.example.bicepparam", "param hosting = 'aks'\n", "", "hosting has neither a default"),
    ("main.aks.example.bicepparam", "param hosting", "param hostng", "has no parameter hostng"),
    ("modules/cosmos.bicep", "disableLocalAuth: true", "disableLocalAuthentication: true", "has no properties.disableLocalAuthentication"),
    ("modules/cosmos.bicep", "'Session'", "'Sesion'", "is not one of"),
    ("modules/cosmos.bicep", "    databaseAccountOfferType: 'Standard'\n", "", "needs properties.databaseAccountOfferType"),
    ("modules/event-hubs.bicep", "disableLocalAuth: true", "disableLocalAuth: 'true'", "is not of type bool"),
    ("modules/event-hubs.bicep", "disableLocalAuth: true", "disableLocalAuth: true\n    status: 'Active'", "is read-only"),
    ("modules/event-hubs.bicep", "cleanupPolicy: 'Delete'", "cleanupPolicy: 'Remove'", "is not one of"),
    ("modules/iot-hub.bicep", "entityPath:", "entitypath:", "has no properties.routing.endpoints.eventHubs[].entitypath"),
    ("modules/storage.bicep", "'TLS1_2'", "'1.2'", "is not one of"),
    ("modules/app-service.bicep", "alwaysOn: true", "allwaysOn: true", "has no properties.siteConfig.allwaysOn"),
    ("modules/storage.bicep", "storageAccounts@2024-01-01", "storageAccounts@2031-01-01", "checks/azure.py has no"),
    ("roles.json", "a638d3c7", "b638d3c7", "in checks/product.py"),
    (
        "modules/iot-hub-access.bicep",
        "'Microsoft.Authorization/roleDefinitions', roles['IoT Hub Data Reader']",
        "'Microsoft.Authorization/roleDefinitions', roles['Storage Blob Data Contributor']",
        "the name of the assignment has",
    ),
    ("modules/registry-access.bicep", "roles.AcrPull)\n  }", "'7f951dda-4ed3-4680-a7ca-43fe172d538d')\n  }", "move it to roles.json"),
    ("README.md", "| IoT Hub Data Reader |", "| |", "does not name the role"),
    ("/docs/errors/BLOB_REFUSED.md", "Storage Blob Data Contributor", "Storage Blob Data Owner", "which nothing assigns"),
    ("main.bicep", "TWINSYNC__DEAD_LETTERS__STORE", "TWINSYNC__DEAD_LETTER__STORE", "has no dead_letter.store"),
    ("main.bicep", "TWINSYNC__CHECKPOINT__STORE: 'blob'", "TWINSYNC__CHECKPOINT__STORE: 'blobs'", "is not a choice"),
    ("main.bicep", "  TWINSYNC__TELEMETRY__LOG_FORMAT: 'json'\n", "", "sets telemetry.log_format, but no Bicep file does"),
    ("main.bicep", "  TWINSYNC__TELEMETRY__LOG_FORMAT: 'json'\n", "  TWINSYNC__COSMOS__KEY: 'a2V5'\n", "is a secret"),
    ("modules/cosmos.bicep", "'/deviceId'", "'/id'", "the partition key is"),
    ("modules/cosmos.bicep", "defaultTtl: -1", "defaultTtl: 86400", "the time to live is"),
    ("modules/cosmos.bicep", "../../cosmos/indexing-policy.json", "../roles.json", "the indexing policy is not"),
    ("modules/cosmos.bicep", "enableMultipleWriteLocations: false", "enableMultipleWriteLocations: true", "COSMOS_MULTI_WRITE"),
    ("modules/cosmos.bicep", "'Session'", "'Eventual'", "COSMOS_CONSISTENCY"),
    ("modules/cosmos.bicep", "    disableLocalAuth: true\n", "", "keys are not switched off"),
    ("main.bicep", "param appServiceStopTimeLimit int = 60", "param appServiceStopTimeLimit int = 30", "may be killed during its drain"),
    ("/config/default.toml", 'drain_timeout = "25s"', 'drain_timeout = "50s"', "may be killed during its drain"),
    ("modules/app-service.bicep", "'/livez'", "'/alive'", "does not serve"),
    ("modules/app-service.bicep", "var port = '8080'", "var port = '8081'", "does not listen on 8081"),
    ("main.bicep", "eventHubRetentionDays + 7", "eventHubRetentionDays + 0", "tombstones expire before"),
    ("main.bicep", "CHANGES__HUB: eventHubs.outputs.hubName", "CHANGES__HUB: 'other'", "use different Event Hubs"),
    ("modules/iot-hub.bicep", "source: 'TwinChangeEvents'\n          condition: 'true'", "source: 'TwinChangeEvents'\n          condition: 'false'", "no route without a condition"),
    ("modules/iot-hub.bicep", "source: 'DeviceLifecycleEvents'", "source: 'DeviceMessages'", "no route without a condition for DeviceLifecycleEvents"),
    ("route-existing-hub", "add_route twinsync-lifecycle", "add_route lifecycle", "does not add the route"),
]


def problems_of(root: pathlib.Path, read: dict) -> list:
    here = root / "deploy/bicep"
    files = {}
    for path in sorted([*here.glob("*.bicep"), *here.glob("modules/*.bicep")]):
        text = path.read_text()
        if (path, text) not in read:
            read[path, text] = source.read(path)
        files[path] = read[path, text]
    problems = [found for file in files.values() for found in file.problems]
    if problems:
        return problems
    problems = compile.check(files)
    problems += [found for path in here.glob("*.bicepparam") for found in compile.check_parameters(path, files)]
    return problems + azure.check(files) + product.check(files, root)


def main() -> int:
    original = pathlib.Path(__file__).resolve().parents[3]
    read: dict = {}
    missed = 0
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory).resolve()
        for place in ("config", "src", "docs/errors", "deploy/cosmos", "deploy/bicep"):
            shutil.copytree(original / place, root / place)
        for place in ("Dockerfile", "README.md"):
            shutil.copy(original / place, root / place)
        if problems_of(root, read):
            print("mutations: there are findings without a planted mistake")
            return 1
        for place, written, slip, expected in SLIPS:
            path = root / (place.lstrip("/") if place.startswith("/") else BICEP + place)
            text = path.read_text()
            if written not in text:
                print(f"mutations: {place} does not contain {written!r}: update SLIPS")
                missed += 1
                continue
            path.write_text(text.replace(written, slip))
            try:
                found = problems_of(root, read)
            except Exception as error:
                found = [f"{type(error).__name__}: {error}"]
            path.write_text(text)
            if not any(expected in one for one in found):
                print(f"mutations: {place}: the checks do not report {slip!r} (expected: {expected}); they report: {found}")
                missed += 1
    print(f"mutations: {len(SLIPS) - missed} of {len(SLIPS)} planted mistakes found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
