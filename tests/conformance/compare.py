"""Compares what each client printed about devkit's hub and about twinsync serve.

Usage: compare.py DIRECTORY, which has hub.node, hub.python, copy.node and copy.python.
"""

import json
import pathlib
import sys

# Properties that no event contains, so the copy may lack them. Names of Node's client and of Python's client.
HUB_ONLY = [
    "authenticationType", "capabilities", "cloudToDeviceMessageCount", "connectionState",
    "connectionStateUpdatedTime", "deviceEtag", "deviceScope", "etag", "lastActivityTime", "modelId",
    "parentScopes", "status", "statusReason", "statusUpdateTime", "x509Thumbprint",
]


def snake(name):
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


NAMES = {spelling: name for name in HUB_ONLY for spelling in (name, snake(name))}
NAMES["x509_thumbprint"] = "x509Thumbprint"


def is_twin(row):
    return isinstance(row, dict) and "properties" in row and "version" in row


def reads(path, given):
    """The lines of a client by name, without the properties of HUB_ONLY. Their names are added to `given`."""

    def kept(row):
        if not is_twin(row):
            return row
        given.update(NAMES[name] for name, value in row.items() if name in NAMES and value is not None)
        return {name: value for name, value in row.items() if name not in NAMES}

    found = {}
    for line in path.read_text().splitlines():
        line = json.loads(line)
        result = line.get("result")
        if isinstance(result, list):
            # The order of rows is not defined.
            line["result"] = sorted((kept(row) for row in result), key=lambda row: json.dumps(row, sort_keys=True))
        elif result is not None:
            line["result"] = kept(result)
        found[line["read"]] = line
    return found


def what(line):
    if line is None:
        return "nothing"
    if "error" in line:
        return f"{line['error']['status']} {line['error'].get('code')}"
    result = line["result"]
    if isinstance(result, list):
        return f"{len(result)} rows"
    return f"version {result['version']}" if is_twin(result) else str(result)


def main():
    directory = pathlib.Path(sys.argv[1])
    given = {"hub": set(), "copy": set()}
    found = {
        (side, client): reads(directory / f"{side}.{client}", given[side])
        for side in given
        for client in ("node", "python")
    }
    names = [read["name"] for read in json.loads((pathlib.Path(__file__).parent / "reads.json").read_text())]
    differ = []
    print(f"{'read':32} {'client':7} {'hub':34} {'copy':34}")
    for name in names:
        for client in ("node", "python"):
            hub, copy = (found[side, client].get(name) for side in ("hub", "copy"))
            same = hub is not None and hub == copy
            print(f"{name[:32]:32} {client:7} {what(hub):34} {what(copy):34} {'same' if same else 'DIFFERS'}")
            if not same:
                differ.append((name, client, hub, copy))
    print()
    for name in HUB_ONLY:
        sides = [side if name in given[side] else "-" for side in given]
        print(f"{name:32} {sides[0]:5} {sides[1]}")
    for name, client, hub, copy in differ:
        print(f"\n{name}, {client}:\n  hub:  {json.dumps(hub)}\n  copy: {json.dumps(copy)}")
    print(f"\n{len(names)} reads by 2 clients, {len(differ)} different")
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
