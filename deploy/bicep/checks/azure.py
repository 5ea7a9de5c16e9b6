"""Checks each property with the models of Azure's Python clients, in the API version of the resource.

Findings are unknown properties, read-only properties, and values that are not in an enumeration. Only Azure can verify that the
properties are valid together.
"""

from __future__ import annotations

import importlib
import re

from . import source

#: For each resource type, the package for exactly this API version, and its model of the request that creates the resource.
MODELS = {
    "Microsoft.Authorization/roleAssignments@2022-04-01": ("authorization.v2022_04_01", "RoleAssignmentCreateParameters"),
    "Microsoft.Devices/IotHubs@2023-06-30": ("iothub.v2023_06_30", "IotHubDescription"),
    "Microsoft.DocumentDB/databaseAccounts@2024-11-15": ("cosmosdb", "DatabaseAccountCreateUpdateParameters"),
    "Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2024-11-15": ("cosmosdb", "SqlDatabaseCreateUpdateParameters"),
    "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2024-11-15": ("cosmosdb", "SqlContainerCreateUpdateParameters"),
    "Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2024-11-15": ("cosmosdb", "SqlRoleAssignmentCreateUpdateParameters"),
    "Microsoft.EventHub/namespaces@2024-01-01": ("eventhub.v2024_01_01", "EHNamespace"),
    "Microsoft.EventHub/namespaces/eventhubs@2024-01-01": ("eventhub.v2024_01_01", "Eventhub"),
    "Microsoft.EventHub/namespaces/eventhubs/consumergroups@2024-01-01": ("eventhub.v2024_01_01", "ConsumerGroup"),
    "Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31": ("msi.v2023_01_31", "Identity"),
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31": (
        "msi.v2023_01_31",
        "FederatedIdentityCredential",
    ),
    "Microsoft.Storage/storageAccounts@2024-01-01": ("storage.v2024_01_01", "StorageAccountCreateParameters"),
    "Microsoft.Storage/storageAccounts/blobServices@2024-01-01": ("storage.v2024_01_01", "BlobServiceProperties"),
    "Microsoft.Storage/storageAccounts/blobServices/containers@2024-01-01": ("storage.v2024_01_01", "BlobContainer"),
    "Microsoft.Web/serverfarms@2024-04-01": ("web.v2024_04_01", "AppServicePlan"),
    "Microsoft.Web/sites@2024-04-01": ("web.v2024_04_01", "Site"),
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-04-01": (
        "web.v2024_04_01",
        "CsmPublishingCredentialsPoliciesEntity",
    ),
}

#: Keys of the template language, which are not properties of a resource.
TEMPLATE = {"parent", "scope", "dependsOn", "name"}


def resource_types(files: dict):
    for path, file in files.items():
        for resource in file.all("resource").values():
            yield path, resource


def check(files: dict) -> list:
    problems = []
    seen = set()
    for path, resource in resource_types(files):
        if resource.existing:
            continue
        where = f"{path}:{resource.line}"
        if resource.type not in MODELS:
            problems.append(f"{where}: MODELS of checks/azure.py has no {resource.type}")
            continue
        seen.add(resource.type)
        package, name = MODELS[resource.type]
        models = importlib.import_module(f"azure.mgmt.{package}.models")
        body = {key: item for key, item in resource.value.items() if key not in TEMPLATE}
        problems += fit(where, "", body, models, name)
    problems += [f"checks/azure.py: no resource has the type {kind}: remove it from MODELS" for kind in MODELS if kind not in seen]
    return problems


def fit(where, at, value, models, kind) -> list:
    """Checks that a value has a type, in the notation of the clients: str, [Model], {Model}, Model."""
    if isinstance(value, source.Expression) or value is None:
        return []
    if isinstance(value, source.Loop):
        return fit(where, f"{at}[]", value.body, models, kind[1:-1]) if kind.startswith("[") else [f"{where}: {at} is not a list"]
    if kind.startswith("["):
        if not isinstance(value, list):
            return [f"{where}: {at} is not a list"]
        return [found for item in value for found in fit(where, f"{at}[]", item, models, kind[1:-1])]
    if kind.startswith("{"):
        if not isinstance(value, dict):
            return [f"{where}: {at} is not an object"]
        return [found for key, item in value.items() for found in fit(where, f"{at}.{key}", item, models, kind[1:-1])]
    model = getattr(models, kind, None)
    if model is None or not hasattr(model, "_attribute_map"):
        wanted = {"str": str, "int": int, "bool": bool, "object": object}.get(kind, object)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            return [f"{where}: {at} = {value!r} is not of type {kind}"]
        return []
    if not isinstance(value, dict):
        return [f"{where}: {at} is not an object"]
    return fields(where, at, value, models, model, "")


def fields(where, at, value, models, model, prefix) -> list:
    """Checks the keys of an object. In the models, keys below `properties` are separate attributes, with a dot in the key."""
    known = {attribute["key"].replace("\\\\.", "\0"): (name, attribute["type"]) for name, attribute in model._attribute_map.items()}
    problems = []
    for key, item in value.items():
        full = f"{prefix}{key}"
        below = f"{full}."
        path = f"{at}.{key}" if at else key
        if full in known:
            name, kind = known[full]
            if getattr(model, "_validation", {}).get(name, {}).get("readonly") and key != "id":
                problems.append(f"{where}: {path} of {model.__name__} is read-only")
            problems += fit(where, path, item, models, kind)
            problems += choice(where, path, item, models, model, name)
        elif any(other.startswith(below) for other in known):
            if isinstance(item, dict):
                problems += fields(where, path, item, models, model, below)
        else:
            problems.append(f"{where}: {model.__name__} has no {path}")
    for name, rule in getattr(model, "_validation", {}).items():
        key = model._attribute_map[name]["key"]
        if rule.get("required") and key.startswith(prefix) and "." not in key[len(prefix) :] and key[len(prefix) :] not in value:
            problems.append(f"{where}: {model.__name__} needs {at + '.' if at else ''}{key[len(prefix):]}")
    return problems


def choice(where, path, item, models, model, name) -> list:
    """Checks the value of an enumeration. The clients declare it as a string; only the docstring of the model names the enumeration."""
    if not isinstance(item, str) or isinstance(item, source.Expression):
        return []
    documented = re.search(rf":vartype {name}: str or ~[\w.]+\.(\w+)", " ".join((model.__doc__ or "").split()))
    enumeration = documented and getattr(models, documented[1], None)
    allowed = [one.value for one in enumeration] if enumeration else []
    if allowed and item not in allowed:
        return [f"{where}: {path} = {item!r} is not one of {allowed}"]
    return []
