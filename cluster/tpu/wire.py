"""From requests to the JSON of the Cloud TPU API, version 2, and back.

Field names are those of the API's reference (projects.locations.nodes and projects.locations.queuedResources).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cluster.tpu.provider import Purchase, Slice, SliceRequest, State

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"

_NODE_STATES = {
    "CREATING": State.CREATING,
    "STARTING": State.CREATING,
    "READY": State.READY,
    "RESTARTING": State.REPAIRING,
    "REIMAGING": State.REPAIRING,
    "REPAIRING": State.REPAIRING,
    "STOPPING": State.STOPPED,
    "STOPPED": State.STOPPED,
    "TERMINATED": State.STOPPED,
    "PREEMPTED": State.PREEMPTED,
    "DELETING": State.DELETING,
}
_QUEUE_STATES = {
    "CREATING": State.QUEUED,
    "ACCEPTED": State.QUEUED,
    "WAITING_FOR_RESOURCES": State.QUEUED,
    "PROVISIONING": State.CREATING,
    "ACTIVE": State.READY,
    "SUSPENDING": State.PREEMPTED,
    "SUSPENDED": State.PREEMPTED,
    "FAILED": State.FAILED,
    "DELETING": State.DELETING,
}
_QUEUE_REASONS = {
    "CREATING": "the request is being recorded",
    "ACCEPTED": "the request waits in the queue",
    "WAITING_FOR_RESOURCES": "the request waits in the queue for capacity",
    "PROVISIONING": "the hosts are being made",
    "SUSPENDED": "the slice was taken away",
    "SUSPENDING": "the slice is being taken away",
}


def node_of(request: SliceRequest) -> dict[str, Any]:
    """The body of a node."""
    node: dict[str, Any] = {
        "acceleratorType": request.accelerator,
        "runtimeVersion": request.runtime_version,
        "networkConfig": {"enableExternalIps": request.external_ips},
        "labels": dict(request.labels),
    }
    if request.network:
        node["networkConfig"]["network"] = request.network
    if request.subnetwork:
        node["networkConfig"]["subnetwork"] = request.subnetwork
    if request.service_account:
        node["serviceAccount"] = {"email": request.service_account, "scope": [_SCOPE]}
    if request.startup_script:
        node["metadata"] = {"startup-script": request.startup_script}
    if not request.queued:  # of a queued one the request says it
        node["schedulingConfig"] = {
            "spot": request.purchase == "spot",
            "reserved": request.purchase == "reserved",
        }
    return node


def queued_resource_of(request: SliceRequest, parent: str) -> dict[str, Any]:
    """The body of a queued resource with its nodes."""
    spec: dict[str, Any] = {"parent": parent, "node": node_of(request)}
    if request.num_slices == 1:
        spec["nodeId"] = request.name
    else:
        spec["multisliceParams"] = {"nodeCount": request.num_slices, "nodeIdPrefix": request.name}
    body: dict[str, Any] = {"tpu": {"nodeSpec": [spec]}}
    if request.purchase == "spot":
        body["spot"] = {}
    if request.purchase == "reserved":
        body["guaranteed"] = {"reserved": True}
        if request.reservation:
            body["reservationName"] = request.reservation
    return body


def slice_of_node(node: Mapping[str, Any]) -> Slice:
    """A node as a slice."""
    place, _, name = node["name"].partition("/nodes/")
    state = _NODE_STATES.get(node.get("state", ""), State.CREATING)
    reason = node.get("healthDescription", "")
    if state is State.PREEMPTED:
        reason = reason or "the slice was taken away"
    scheduling = node.get("schedulingConfig", {})
    purchase: Purchase = "spot" if _is_spot(scheduling) else "reserved" if scheduling.get("reserved") else "on-demand"
    return Slice(
        name,
        place.rpartition("/")[2],
        state,
        reason,
        node.get("acceleratorType", ""),
        purchase,
        tuple(endpoint.get("ipAddress", "") for endpoint in node.get("networkEndpoints", ())),
        node.get("labels", {}),
        _seconds(node.get("createTime")),
    )


def slice_of_queued(resource: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> Slice:
    """A queued resource as a slice.

    Args:
        resource: As the API gives it.
        nodes: Those of its nodes that exist, in their order.
    """
    place, _, name = resource["name"].partition("/queuedResources/")
    told = resource.get("state", {})
    state = _QUEUE_STATES.get(told.get("state", ""), State.QUEUED)
    reason = _QUEUE_REASONS.get(told.get("state", ""), "")
    if state is State.FAILED:
        reason = told.get("failedData", {}).get("error", {}).get("message", "the request failed")
    specs = resource.get("tpu", {}).get("nodeSpec", [])
    spec = specs[0] if specs else {}
    parts = [slice_of_node(node) for node in nodes]
    if state is State.READY:
        wanted = spec.get("multisliceParams", {}).get("nodeCount", 1)
        state, reason = _state_of_parts(parts, int(wanted))
    purchase: Purchase = "spot" if "spot" in resource else "reserved" if _is_reserved(resource) else "on-demand"
    return Slice(
        name,
        place.rpartition("/")[2],
        state,
        reason,
        spec.get("node", {}).get("acceleratorType", ""),
        purchase,
        tuple(host for part in parts for host in part.hosts),
        spec.get("node", {}).get("labels", {}),
        _seconds(resource.get("createTime")),
    )


def names_of_nodes(resource: Mapping[str, Any]) -> list[str]:
    """The nodes that a queued resource makes, whether they exist or not."""
    names = []
    for spec in resource.get("tpu", {}).get("nodeSpec", []):
        several = spec.get("multisliceParams")
        if several:
            prefix = several.get("nodeIdPrefix", resource["name"].rpartition("/")[2])
            names += [f"{prefix}-{i}" for i in range(int(several["nodeCount"]))]
        elif "nodeId" in spec:
            names.append(spec["nodeId"])
    return names


def _state_of_parts(parts: Sequence[Slice], wanted: int) -> tuple[State, str]:
    """The state of slices that belong together: that of the worst one."""
    for part in parts:
        if part.state is not State.READY:
            return part.state, part.reason
    if len(parts) < wanted:
        return State.FAILED, f"{wanted - len(parts)} of {wanted} slices are gone"
    return State.READY, ""


def _is_spot(scheduling: Mapping[str, Any]) -> bool:
    return bool(scheduling.get("spot") or scheduling.get("preemptible"))


def _is_reserved(resource: Mapping[str, Any]) -> bool:
    return bool(resource.get("guaranteed", {}).get("reserved")) or "reservationName" in resource


def _seconds(time: str | None) -> float:
    if not time:
        return 0.0
    return datetime.fromisoformat(time.replace("Z", "+00:00")[:19] + "+00:00").timestamp()
