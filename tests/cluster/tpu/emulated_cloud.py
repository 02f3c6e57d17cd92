"""What the Cloud TPU API does behind its wire: nodes, queued resources and operations, as functions of time.

Nothing happens between two requests: whatever is due by the time of a request is then done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Room = Literal["yes", "no", "no quota"]


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, http: int, status: str, message: str) -> None:
        super().__init__(message)
        self.http, self.status, self.message = http, status, message


@dataclass
class Zone:
    """How a zone behaves.

    Attributes:
        room: Whether slices can be made.
        queue_s: In the queue before a slice is made.
        create_s: While it is made.
        delete_s: While it is deleted.
        preempt_s: After which a spot slice is taken away, counted from its request; drawn anew for each.
    """

    room: Room = "yes"
    queue_s: float = 5.0
    create_s: float = 20.0
    delete_s: float = 10.0
    preempt_s: Callable[[], float | None] = lambda: None


@dataclass
class _Made:
    """A queued resource, or a node that was made without one."""

    zone: str
    name: str
    body: dict[str, Any]
    begun: float
    queued: bool
    preempted: float | None
    deleting: float | None = None
    operation: str = ""


@dataclass
class EmulatedCloud:
    """The state of one project.

    Attributes:
        now: The time.
        remembers: Whether a request with the id of an earlier one gets the earlier answer; the API forgets them.
        zones: By name; another one is refused.
        made: Names of the slices that were made, one entry for each time.
        together: The most slices of one run that were there at once.
        hosts_of_node: How many there are of each node.
        host_ports: Of the hosts' servers, where the hosts are on this machine; None: they are nowhere.
    """

    now: Callable[[], float]
    zones: dict[str, Zone]
    project: str = "p"
    remembers: bool = True
    hosts_of_node: int = 1
    host_ports: list[int] | None = None
    health: str = "HEALTHY"
    symptoms: list[dict[str, str]] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    together: int = 0
    _slices: dict[tuple[str, str], _Made] = field(default_factory=dict)
    _answered: dict[str, str] = field(default_factory=dict)
    _operations: dict[str, dict[str, Any]] = field(default_factory=dict)

    def alive(self) -> list[str]:
        """Names of the slices that are there, in whatever state."""
        self._settle()
        return [f"{zone}/{name}" for zone, name in self._slices]

    def nodes(self) -> list[dict[str, Any]]:
        """All nodes, as the API shows them."""
        self._settle()
        return [node for made in list(self._slices.values()) for node in self._nodes_of(made)]

    def preempt(self) -> None:
        """Takes all slices away, now."""
        self._settle()
        for made in self._slices.values():
            made.preempted = self.now()

    def handle(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        """Answers a request.

        Args:
            path: Without version, such as "projects/p/locations/z/nodes".

        Raises:
            Refused: With Google's status.
        """
        self._settle()
        parts = path.split("/")
        if parts[:3] != ["projects", self.project, "locations"]:
            raise Refused(403, "PERMISSION_DENIED", f"Permission denied on resource project {parts[1]}.")
        zone, kind, name = parts[3], parts[4], parts[5] if len(parts) > 5 else None
        if zone not in self.zones:
            raise Refused(
                404 if name else 400, "INVALID_ARGUMENT", f"Location {zone} is not found or access is unauthorized."
            )
        if kind == "operations" and name:
            return self._operation(path)
        if method == "POST":
            return self._create(zone, kind, query, body)
        if method == "DELETE" and name:
            return self._delete(zone, kind, name, query)
        if name is None:
            return self._list(zone, kind, query)
        return self._found(zone, kind, name)

    def _create(self, zone: str, kind: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        name = query["nodeId" if kind == "nodes" else "queuedResourceId"]
        if (token := query.get("requestId", "")) in self._answered and self.remembers:
            return self._operation(self._answered[token])
        if (zone, name) in self._slices:
            raise Refused(409, "ALREADY_EXISTS", f"Resource '{self._path(zone, kind, name)}' already exists.")
        place = self.zones[zone]
        if place.room == "no quota" and kind == "nodes":
            raise Refused(
                429, "RESOURCE_EXHAUSTED", "Quota limit 'TPUV5sLitepodPerProjectPerZone' has been exceeded. Limit: 0."
            )
        wait = place.preempt_s()
        made = _Made(
            zone, name, body, self.now(), kind == "queuedResources", None if wait is None else self.now() + wait
        )
        made.operation = f"projects/{self.project}/locations/{zone}/operations/operation-{len(self._operations)}"
        self._operations[made.operation] = {"name": made.operation, "done": False}
        self._answered[token] = made.operation
        self._slices[zone, name] = made
        self.made.append(f"{zone}/{name}")
        run = self._labels(made).get("phalanx-run")
        self.together = max(
            self.together, sum(self._labels(m).get("phalanx-run") == run for m in self._slices.values())
        )
        return self._operations[made.operation]

    def _delete(self, zone: str, kind: str, name: str, query: dict[str, str]) -> dict[str, Any]:
        made = self._known(zone, kind, name)
        if made.queued and query.get("force") != "true" and self._nodes_of(made):
            raise Refused(400, "FAILED_PRECONDITION", "The queued resource has nodes: delete them first, or use force.")
        if made.deleting is None:
            made.deleting = self.now()
        operation = f"projects/{self.project}/locations/{zone}/operations/operation-{len(self._operations)}"
        self._operations[operation] = {"name": operation, "done": False}
        return self._operations[operation]

    def _list(self, zone: str, kind: str, query: dict[str, str]) -> dict[str, Any]:
        if kind == "queuedResources":
            found = [self._queued(m) for m in self._slices.values() if m.zone == zone and m.queued]
        else:
            found = [node for m in self._slices.values() if m.zone == zone for node in self._nodes_of(m)]
        first = int(query.get("pageToken") or 0)
        size = min(int(query.get("pageSize") or 2), 2)  # small pages, so that there are several
        page: dict[str, Any] = {kind: found[first : first + size]}
        if first + size < len(found):
            page["nextPageToken"] = str(first + size)
        return page

    def _found(self, zone: str, kind: str, name: str) -> dict[str, Any]:
        if kind == "queuedResources":
            return self._queued(self._known(zone, kind, name))
        for made in self._slices.values():
            for node in self._nodes_of(made):
                if node["name"] == self._path(zone, "nodes", name):
                    return node
        raise Refused(404, "NOT_FOUND", f"Resource '{self._path(zone, kind, name)}' was not found.")

    def _known(self, zone: str, kind: str, name: str) -> _Made:
        made = self._slices.get((zone, name))
        if made is None or made.queued != (kind == "queuedResources"):
            raise Refused(404, "NOT_FOUND", f"Resource '{self._path(zone, kind, name)}' was not found.")
        return made

    def _operation(self, name: str) -> dict[str, Any]:
        if name not in self._operations:
            raise Refused(404, "NOT_FOUND", f"Operation '{name}' was not found.")
        return self._operations[name]

    def _settle(self) -> None:
        """Does what is due."""
        for key, made in list(self._slices.items()):
            place, age = self.zones[made.zone], self.now() - made.begun
            operation = self._operations[made.operation]
            if made.queued:
                operation["done"] = True
            elif place.room == "no" and age > 3:
                message = f'There is no more capacity in the zone "{made.zone}"; you can try in another zone.'
                operation |= {"done": True, "error": {"code": 8, "message": message}}
                self._slices.pop(key, None)
                continue
            elif age > place.create_s:
                operation["done"] = True
            if made.deleting is not None and self.now() >= made.deleting + place.delete_s:
                self._slices.pop(key, None)

    def _queued(self, made: _Made) -> dict[str, Any]:
        state: dict[str, Any] = {"state": self._queue_state(made)}
        if state["state"] == "FAILED":
            state["failedData"] = {"error": {"code": 8, "message": "Quota limit 'TPUV5sLitepod' has been exceeded."}}
        path = self._path(made.zone, "queuedResources", made.name)
        return {**made.body, "name": path, "state": state, "createTime": _time(made.begun)}

    def _queue_state(self, made: _Made) -> str:
        place, age = self.zones[made.zone], self.now() - made.begun
        if made.deleting is not None:
            return "DELETING"
        if place.room == "no quota":
            return "FAILED"
        if age < 1:
            return "ACCEPTED"
        if place.room == "no" or age < place.queue_s:
            return "WAITING_FOR_RESOURCES"
        if made.preempted is not None and self.now() >= made.preempted:
            return "SUSPENDED"
        return "PROVISIONING" if age < place.queue_s + place.create_s else "ACTIVE"

    def _nodes_of(self, made: _Made) -> list[dict[str, Any]]:
        if not made.queued:
            preempted = made.preempted is not None and self.now() >= made.preempted
            state = "DELETING" if made.deleting is not None else "PREEMPTED" if preempted else "READY"
            if state == "READY" and self.now() - made.begun < self.zones[made.zone].create_s:
                state = "CREATING"
            return [self._node(made, made.name, made.body, state, 0)]
        state = self._queue_state(made)
        states = {"PROVISIONING": "CREATING", "ACTIVE": "READY", "SUSPENDED": "PREEMPTED", "DELETING": "DELETING"}
        if state not in states:
            return []
        (spec,) = made.body["tpu"]["nodeSpec"]
        several = spec.get("multisliceParams")
        names = [spec["nodeId"]] if not several else [
            f"{several['nodeIdPrefix']}-{i}" for i in range(several["nodeCount"])
        ]  # fmt: skip
        return [self._node(made, name, spec["node"], states[state], i) for i, name in enumerate(names)]

    def _node(self, made: _Made, name: str, body: dict[str, Any], state: str, number: int) -> dict[str, Any]:
        hosts = range(self.hosts_of_node if state == "READY" else 0)
        endpoints = [{"ipAddress": f"10.0.{number}.{2 + host}", "port": 8470} for host in hosts]
        if self.host_ports is not None:
            endpoints = [{"ipAddress": "127.0.0.1", "port": self.host_ports[host]} for host in hosts]
        return {
            **body,
            "name": self._path(made.zone, "nodes", name),
            "state": state,
            "health": self.health,
            "symptoms": self.symptoms,
            "networkEndpoints": endpoints,
            "createTime": _time(made.begun),
        }

    def _labels(self, made: _Made) -> dict[str, str]:
        node = made.body["tpu"]["nodeSpec"][0]["node"] if made.queued else made.body
        return node.get("labels", {})

    def _path(self, zone: str, kind: str, name: str) -> str:
        return f"projects/{self.project}/locations/{zone}/{kind}/{name}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
