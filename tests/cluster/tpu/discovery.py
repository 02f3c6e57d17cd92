"""The discovery documents of the Cloud TPU API, versions 1 and 2, cut down to the methods that are used."""

from __future__ import annotations

from typing import Any

_STRING = {"type": "string", "location": "query"}


def _method(version: str, kind: str, action: str) -> dict[str, Any]:
    on_one = action in ("get", "delete")
    name = "name" if on_one else "parent"
    place = {"operations": "operations", "nodes": "nodes", "queuedResources": "queuedResources"}[kind]
    query = {
        "get": [],
        "list": ["pageToken"],
        "create": ["requestId", {"nodes": "nodeId", "queuedResources": "queuedResourceId"}.get(kind, "id")],
        "delete": ["requestId"],
    }[action]
    parameters: dict[str, Any] = {name: {"type": "string", "location": "path", "required": True, "pattern": "^.+$"}}
    parameters |= dict.fromkeys(query, _STRING)
    if action == "list":
        parameters["pageSize"] = {"type": "integer", "format": "int32", "location": "query"}
    if action == "delete" and kind == "queuedResources":
        parameters["force"] = {"type": "boolean", "location": "query"}
    schema = {"nodes": "Node", "queuedResources": "QueuedResource", "operations": "Operation"}[kind]
    method: dict[str, Any] = {
        "id": f"tpu.projects.locations.{kind}.{action}",
        "path": f"{version}/{{+{name}}}" + ("" if on_one else f"/{place}"),
        "httpMethod": {"get": "GET", "list": "GET", "create": "POST", "delete": "DELETE"}[action],
        "parameters": parameters,
        "parameterOrder": [name],
        "response": {"$ref": schema if action == "get" else f"List{schema}" if action == "list" else "Operation"},
    }
    if action == "create":
        method["request"] = {"$ref": schema}
    return method


def discovery_document(root: str, version: str) -> dict[str, Any]:
    """The document of a version, with its methods below `root`."""
    kinds = {"nodes": ["get", "list", "create", "delete"], "operations": ["get", "list"]}
    if version == "v2":
        kinds["queuedResources"] = ["get", "list", "create", "delete"]
    resources = {
        kind: {"methods": {action: _method(version, kind, action) for action in actions}}
        for kind, actions in kinds.items()
    }
    names = ("Node", "QueuedResource", "Operation", "ListNode", "ListQueuedResource", "ListOperation")
    return {
        "kind": "discovery#restDescription",
        "id": f"tpu:{version}",
        "name": "tpu",
        "version": version,
        "protocol": "rest",
        "rootUrl": root,
        "servicePath": "",
        "baseUrl": root,
        "batchPath": "batch",
        "parameters": {},
        "schemas": {name: {"id": name, "type": "object", "properties": {}} for name in names},
        "resources": {"projects": {"resources": {"locations": {"resources": resources}}}},
    }
