"""Compares the Bicep files with the program: roles, settings, the container, and the time for a shutdown."""

from __future__ import annotations

import json
import pathlib
import re
import tomllib

from . import source

#: Ids of Azure's built-in roles. Deliberately a second copy, because a mistake in roles.json would assign another role.
IDS = {
    "AcrPull": "7f951dda-4ed3-4680-a7ca-43fe172d538d",
    "Azure Event Hubs Data Receiver": "a638d3c7-ab3a-418d-83e6-5f17a39d4fde",
    "Azure Event Hubs Data Sender": "2b629674-e913-4c01-ae53-ef4638d8f975",
    "Cosmos DB Built-in Data Contributor": "00000000-0000-0000-0000-000000000002",
    "IoT Hub Data Reader": "b447c946-2db7-41ec-983d-d8bf3b1c77e3",
    "Storage Blob Data Contributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
}

#: Roles that the program does not need: the IoT hub sends events, and App Service pulls the image.
OF_OTHERS = {"Azure Event Hubs Data Sender", "AcrPull"}

#: Names of data plane roles, as the program and its documentation write them.
ROLE = re.compile(
    r"(Azure Event Hubs Data (?:Receiver|Owner|Sender)|Storage Blob Data (?:Contributor|Owner|Reader)"
    r"|IoT Hub Data (?:Reader|Contributor)|Cosmos DB Built-in\s+Data (?:Contributor|Reader))"
)

#: Keys of config/production.example.toml that a deployment does not need to set, with the reason.
LEFT_OUT = {
    "cosmos.application_region": "the account has one region",
    "iothub.share": "the default is the same",
}

#: Seconds that a shutdown takes after the drain, for the last checkpoints, leases and connections.
AFTER_DRAIN = 10


def flat(table: dict, prefix: str = "") -> dict:
    found = {}
    for key, item in table.items():
        if isinstance(item, dict):
            found |= flat(item, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = item
    return found


def seconds(text: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)([smhd])", text))


def settings_of(files: dict):
    """Every TWINSYNC__… that a file sets: location, configuration key, and value."""
    for path, file in files.items():
        for one in file.declarations:
            if isinstance(one.value, dict) and one.kind == "var":
                for name, item in one.value.items():
                    if name.startswith("TWINSYNC__"):
                        yield f"{path}:{one.line}", name[len("TWINSYNC__") :].lower().replace("__", "."), item


def check(files: dict, root: pathlib.Path) -> list:
    here = root / "deploy/bicep"
    defaults_text = (root / "config/default.toml").read_text()
    defaults = flat(tomllib.loads(defaults_text))
    main = files[here / "main.bicep"]
    problems = roles(files, root, here)
    problems += settings(files, root, defaults, defaults_text)
    problems += container(files[here / "modules/cosmos.bicep"], root, here)
    problems += stop(files, here, main, defaults, root)
    problems += streams(files, here, main)
    return problems


def roles(files, root, here) -> list:
    problems = []
    table = json.loads((here / "roles.json").read_text())
    for name, identifier in table.items():
        if IDS.get(name) != identifier:
            problems.append(f"roles.json: {name} is {identifier}, but {IDS.get(name)} in checks/product.py")
    places = [*(root / "docs/errors").glob("*.md"), root / "config/production.example.toml", root / "README.md"]
    places += [path for path in (root / "src").rglob("*.rs") if path.name != "tests.rs"]
    named = {}
    for place in places:
        for role in ROLE.findall(place.read_text()):
            named.setdefault(" ".join(role.split()), place.relative_to(root))
    assigned = set()
    for path, file in files.items():
        for resource in file.all("resource").values():
            kind = resource.type.split("@")[0]
            if kind not in ("Microsoft.Authorization/roleAssignments", "Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments"):
                continue
            where = f"{path}:{resource.line}"
            used = re.findall(r"roles(?:\['([^']+)'\]|\.(\w+))", str(resource.value["properties"]["roleDefinitionId"]))
            used = ["".join(pair) for pair in used]
            in_name = ["".join(pair) for pair in re.findall(r"roles(?:\['([^']+)'\]|\.(\w+))", str(resource.value["name"]))]
            if len(used) != 1 or used != in_name:
                problems.append(f"{where}: the name of the assignment has the role {in_name}, but it assigns {used}")
            problems += [f"{where}: roles.json has no {role}" for role in used if role not in table]
            problems += [f"{where}: {role} is assigned twice" for role in used if role in assigned]
            assigned |= set(used)
        if re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}", file.text):
            problems.append(f"{path}: contains the id of a role: move it to roles.json")
    problems += [f"{place} requires the role {role}, which nothing assigns" for role, place in named.items() if role not in assigned]
    problems += [
        f"{role} is assigned, but neither docs/errors nor the program requires it"
        for role in sorted(assigned - OF_OTHERS)
        if role not in named
    ]
    problems += [f"roles.json: nothing assigns {role}" for role in table if role not in assigned]
    readme = (here / "README.md").read_text() if (here / "README.md").is_file() else ""
    problems += [f"README.md does not name the role {role}" for role in table if role not in readme]
    return problems


def settings(files, root, defaults, defaults_text) -> list:
    problems = []
    found = {}
    for where, key, item in settings_of(files):
        found.setdefault(key, item)
        if key not in defaults:
            problems.append(f"{where}: config/default.toml has no {key}")
        if re.search(rf"^# Secret\..*?^{re.escape(key.split('.')[-1])} =", section(defaults_text, key), re.MULTILINE | re.DOTALL):
            # Only if the paragraph directly above the key says so.
            above = section(defaults_text, key).split(f"\n{key.split('.')[-1]} =")[0].split("\n\n")[-1]
            if above.lstrip().startswith("# Secret."):
                problems.append(f"{where}: {key} is a secret, and Azure stores the parameters of a deployment: remove it")
    example = flat(tomllib.loads((root / "config/production.example.toml").read_text()))
    problems += [
        f"config/production.example.toml sets {key}, but no Bicep file does"
        for key in example
        if key not in found and key not in LEFT_OUT
    ]
    for key in ("credential.kind", "checkpoint.store", "dead_letters.store", "backfill.on_start", "telemetry.log_format"):
        item = found.get(key)
        if isinstance(item, str) and not isinstance(item, source.Expression):
            if f'"{item}"' not in section(defaults_text, key):
                problems.append(f"{key} = {item!r} is not a choice that config/default.toml lists")
    return problems


def section(text: str, key: str) -> str:
    """The text of a key's section, with its comments."""
    name = key.rsplit(".", 1)[0]
    match = re.search(rf"^\[{re.escape(name)}\]$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    return match[1] if match else ""


def container(file, root, here) -> list:
    problems = []
    resources = file.all("resource")
    resource = resources["container"].value["properties"]["resource"]
    account = resources["account"].value["properties"]
    # The values that the page of the error recommends.
    told = (root / "docs/errors/COSMOS_NOT_FOUND.md").read_text()
    key, ttl, policy = re.search(r"-p (\S+) --ttl (-?\d+) --idx @([\w/.-]+)`", told).groups()
    if resource["partitionKey"]["paths"] != [key]:
        problems.append(f"{file.path}: the partition key is {resource['partitionKey']['paths']}, but {key} in docs/errors")
    if resource["defaultTtl"] != int(ttl):
        problems.append(f"{file.path}: the time to live is {resource['defaultTtl']}, but {ttl} in docs/errors")
    loaded = re.fullmatch(r"loadJsonContent\('([^']+)'\)", str(resource["indexingPolicy"]))
    if not loaded or (file.path.parent / loaded[1]).resolve() != (root / policy).resolve():
        problems.append(f"{file.path}: the indexing policy is not {policy}")
    elif json.loads((root / policy).read_text())["indexingMode"] != "consistent":
        problems.append(f"{policy}: is not a consistent indexing policy")
    if account["consistencyPolicy"]["defaultConsistencyLevel"] not in ("Session", "BoundedStaleness", "Strong"):
        problems.append(f"{file.path}: the consistency is too weak (COSMOS_CONSISTENCY)")
    if account["enableMultipleWriteLocations"] is not False or len(account["locations"]) != 1:
        problems.append(f"{file.path}: more than one write region (COSMOS_MULTI_WRITE)")
    for name, resource in resources.items():
        if name == "account" and account.get("disableLocalAuth") is not True:
            problems.append(f"{file.path}: keys are not switched off")
    return problems


def stop(files, here, main, defaults, root) -> list:
    problems = []
    drain = seconds(defaults["shutdown.drain_timeout"])
    least = drain + AFTER_DRAIN
    app = files[here / "modules/app-service.bicep"]
    limits = {"main.bicep": main.all("param")["appServiceStopTimeLimit"], "app-service.bicep": app.all("param")["stopTimeLimit"]}
    for name, limit in limits.items():
        values = [limit.decorators["minValue"]] + ([limit.value] if limit.has_value else [])
        if min(values) < least:
            problems.append(f"{name}: the daemon may be killed during its drain, after {min(values)} s; a drain of {drain} s needs {least} s")
        if limit.decorators["maxValue"] > 120:
            problems.append(f"{name}: App Service waits at most 120 s")
        if f"{drain} s" not in limit.decorators["description"]:
            problems.append(f"{name}: the description of {limit.name} must contain the drain timeout, {drain} s")
    platform = app.all("var")["platformSettings"].value
    if platform["WEBSITES_CONTAINER_STOP_TIME_LIMIT"] != "string(stopTimeLimit)":
        problems.append("app-service.bicep: WEBSITES_CONTAINER_STOP_TIME_LIMIT is not stopTimeLimit")
    port = app.all("var")["port"].value
    if f"EXPOSE {port}\n" not in (root / "Dockerfile").read_text():
        problems.append(f"app-service.bicep: the image does not listen on {port}")
    if platform["TWINSYNC__HTTP__LISTEN"] != "'0.0.0.0:${port}'" or platform["WEBSITES_PORT"] != "port":
        problems.append("app-service.bicep: App Service and the daemon use different ports")
    site = app.all("resource")["app"].value["properties"]["siteConfig"]
    routes = "".join(path.read_text() for path in [root / "src/http.rs", *(root / "src/http").rglob("*.rs")])
    if f'"{site.get("healthCheckPath")}"' not in routes:
        problems.append(f"app-service.bicep: the daemon does not serve {site['healthCheckPath']}")
    if site.get("alwaysOn") is not True:
        problems.append("app-service.bicep: Always On is off, so App Service could stop the replication")
    return problems


def streams(files, here, main) -> list:
    problems = []
    stream = main.all("var")["streamSettings"].value
    if stream["TWINSYNC__EVENTHUBS__LIFECYCLE__HUB"] != stream["TWINSYNC__EVENTHUBS__TWIN_CHANGES__HUB"]:
        problems.append("main.bicep: the two streams use different Event Hubs")
    if stream["TWINSYNC__EVENTHUBS__RETENTION"] != "'${eventHubRetentionDays}d'":
        problems.append("main.bicep: eventhubs.retention is not the retention of the Event Hub")
    if not re.fullmatch(r"'\$\{eventHubRetentionDays \+ [1-9]\d*\}d'", stream["TWINSYNC__DOCUMENT__TOMBSTONE_TTL"]):
        problems.append("main.bicep: tombstones expire before the events")
    hub = files[here / "modules/iot-hub.bicep"].all("resource")["hub"].value["properties"]["routing"]
    routes = {route["source"]: route for route in hub["routes"]}
    for wanted in ("DeviceLifecycleEvents", "TwinChangeEvents"):
        route = routes.get(wanted)
        if not route or route["condition"] != "true" or route["isEnabled"] is not True:
            problems.append(f"iot-hub.bicep: no route without a condition for {wanted}")
        elif route["endpointNames"] != [hub["endpoints"]["eventHubs"][0]["name"]]:
            problems.append(f"iot-hub.bicep: the route for {wanted} has another endpoint")
    if hub["endpoints"]["eventHubs"][0]["authenticationType"] != "identityBased":
        problems.append("iot-hub.bicep: the endpoint does not use an identity")
    if not hub["fallbackRoute"]["isEnabled"]:
        problems.append("iot-hub.bicep: the fallback route is disabled, so telemetry would be lost")
    script = (here / "route-existing-hub").read_text() if (here / "route-existing-hub").is_file() else ""
    for route in hub["routes"]:
        if route["name"] not in script or route["source"] not in script:
            problems.append(f"route-existing-hub: does not add the route {route['name']} for {route['source']}")
    return problems
