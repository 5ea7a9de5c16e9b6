"""Performs the reads of reads.json with the unchanged package azure-iot-hub, and prints one line of JSON for each.

CONNECTION_STRING names the endpoint and the key; WRONG_CONNECTION_STRING is the same with a wrong key.
"""

import json
import os
import pathlib

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification
from msrest.exceptions import HttpOperationError


def plain(value):
    """The client's result as JSON."""
    return value.as_dict() if hasattr(value, "as_dict") else value


def twin(registry, ids):
    if len(ids) == 1:
        return plain(registry.get_twin(ids[0]))
    return plain(registry.get_module_twin(*ids))


def rows(registry, read):
    found, pages, token = [], 0, None
    while True:
        page = registry.query_iot_hub(QuerySpecification(query=read["query"]), token, read.get("page", 100))
        found.extend(plain(item) for item in page.items)
        pages += 1
        token = page.continuation_token
        if not token:
            break
    if "page" in read and len(found) > read["page"] and pages < 2:
        raise SystemExit(f"{len(found)} rows are on one page of size {read['page']}")
    return len(found) if read.get("rows") == "count" else found


def main():
    for read in json.loads((pathlib.Path(__file__).parent.parent / "reads.json").read_text()):
        name = "WRONG_CONNECTION_STRING" if "key" in read else "CONNECTION_STRING"
        registry = IoTHubRegistryManager.from_connection_string(os.environ[name])
        try:
            result = twin(registry, read["twin"]) if "twin" in read else rows(registry, read)
            line = {"read": read["name"], "result": result}
        except HttpOperationError as error:
            code = error.response.headers.get("iothub-errorcode")
            line = {"read": read["name"], "error": {"status": error.response.status_code, "code": code}}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
