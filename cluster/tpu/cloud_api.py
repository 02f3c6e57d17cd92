"""The Cloud TPU API as a provider of slices.

State and health come from cloud-tpu-client; it cannot make anything, so that the rest goes to the API's version 2 with
the discovery client that it is built on. Both find the service by its discovery document, which may lie elsewhere
(`TPU_API_DISCOVERY_URL`).

For chips after v6e Google's way is Compute Engine or GKE, which would be other implementations of `TpuProvider`.
"""

from __future__ import annotations

import http.client
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from cluster.tpu import wire
from cluster.tpu.cloud_errors import error_of_answer, error_of_status
from cluster.tpu.provider import (
    REQUEST_LABEL,
    Health,
    RequestRefused,
    Slice,
    SliceRequest,
    TpuError,
    Unavailable,
    WrongCredentials,
)

DISCOVERY_URL = "https://tpu.googleapis.com/$discovery/rest?version={apiVersion}"
_DISCOVERY_VARIABLE = "TPU_API_DISCOVERY_URL"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_PAGE = 500
_MAINTENANCE = ("MAINTENANCE", "PROJECT_ABUSE")


class NotInstalled(ValueError):
    """The extra is not installed."""


class CloudTpuApi:
    """Slices of one project.

    Args:
        project: Its name.
        credentials: Of google-auth; None for the application's default ones.
        timeout_s: Seconds for one answer.

    Raises:
        NotInstalled: The extra is not installed.
        WrongCredentials: There are none.
    """

    def __init__(self, project: str, credentials: Any = None, timeout_s: float = 60.0) -> None:
        check_installed()
        self._project, self._timeout_s = project, timeout_s
        self._credentials = credentials or _default_credentials()
        self._services: dict[str, Any] = {}
        self._operations: dict[tuple[str, str], str] = {}

    def create(self, request: SliceRequest) -> None:
        """Asks for a slice; the request's own label makes the same request known when it is sent twice."""
        parent = self._parent(request.zone)
        # The API answers a request with the same id as it did the first time, while it remembers it.
        token = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{parent}/{request.name}/{request.labels.get(REQUEST_LABEL, '')}"))
        if request.queued:
            body = wire.queued_resource_of(request, parent)
            self._call(
                lambda v2: v2.queuedResources().create(
                    parent=parent, queuedResourceId=request.name, requestId=token, body=body
                )
            )
            return
        body = wire.node_of(request)
        operation = self._call(
            lambda v2: v2.nodes().create(parent=parent, nodeId=request.name, requestId=token, body=body)
        )
        self._operations[request.zone, request.name] = operation["name"]

    def find(self, name: str, zone: str) -> Slice | None:
        """The slice of a name, queued or made directly."""
        parent = self._parent(zone)
        queued = self._get(lambda v2: v2.queuedResources().get(name=f"{parent}/queuedResources/{name}"))
        if queued is None:
            node = self._node(zone, name)
            return wire.slice_of_node(node) if node else self._failed(name, zone)
        nodes = [self._node(zone, each) for each in wire.names_of_nodes(queued)]
        return wire.slice_of_queued(queued, [node for node in nodes if node])

    def list(self, zone: str) -> list[Slice]:
        """All queued resources with their nodes, and all nodes that stand alone."""
        parent = self._parent(zone)
        nodes = {
            node["name"].rpartition("/")[2]: node
            for node in self._pages(
                lambda v2, page: v2.nodes().list(parent=parent, pageSize=_PAGE, pageToken=page), "nodes"
            )
        }
        found = []
        for queued in self._pages(
            lambda v2, page: v2.queuedResources().list(parent=parent, pageSize=_PAGE, pageToken=page), "queuedResources"
        ):
            parts = [nodes.pop(name, None) for name in wire.names_of_nodes(queued)]
            found.append(wire.slice_of_queued(queued, [node for node in parts if node]))
        return [*found, *(wire.slice_of_node(node) for node in nodes.values())]

    def delete(self, name: str, zone: str) -> None:
        """Asks for the end of a queued resource with its nodes, or of a node."""
        parent = self._parent(zone)
        if self._get(lambda v2: v2.queuedResources().get(name=f"{parent}/queuedResources/{name}")) is not None:
            resource = f"{parent}/queuedResources/{name}"
            self._get(lambda v2: v2.queuedResources().delete(name=resource, force=True))
        else:
            self._get(lambda v2: v2.nodes().delete(name=f"{parent}/nodes/{name}"))

    def health(self, name: str, zone: str) -> Health:
        """How a slice is, by cloud-tpu-client."""
        client = self._client(name, zone)
        health = self._told(client.health)
        symptoms = tuple(symptom.get("symptomType", "") for symptom in self._told(client.symptoms) or ())
        upcoming = any(word in (health or "") for word in _MAINTENANCE) or any(
            word in symptom for symptom in symptoms for word in _MAINTENANCE
        )
        return Health(
            healthy=health in (None, "HEALTHY", "HEALTH_UNSPECIFIED"),
            description=health or "",
            symptoms=symptoms,
            maintenance=upcoming,
            recoverable=bool(self._told(client.recoverable)),
        )

    def _failed(self, name: str, zone: str) -> Slice | None:
        """A node that was asked for and is not there, where the operation says why, and says it once."""
        operation = self._operations.get((zone, name))
        ended = operation and self._get(lambda v2: v2.operations().get(name=operation))
        if not ended or not ended.get("done"):
            return None
        del self._operations[zone, name]
        if "error" not in ended:
            return None
        error = error_of_status(ended["error"])
        if isinstance(error, Unavailable):
            return None
        raise error

    def _parent(self, zone: str) -> str:
        return f"projects/{self._project}/locations/{zone}"

    def _node(self, zone: str, name: str) -> dict[str, Any] | None:
        return self._get(lambda v2: v2.nodes().get(name=f"{self._parent(zone)}/nodes/{name}"))

    def _pages(self, request: Callable[[Any, str | None], Any], key: str) -> Iterator[dict[str, Any]]:
        page: str | None = None
        while True:
            answer = self._call(lambda v2, page=page: request(v2, page))
            yield from answer.get(key, ())
            page = answer.get("nextPageToken")
            if not page:
                return

    def _get(self, request: Callable[[Any], Any]) -> dict[str, Any] | None:
        """The answer to a request; None where what it is about does not exist."""
        try:
            return self._call(request)
        except RequestRefused as error:
            if getattr(error, "status", 0) == 404:
                return None
            raise

    def _call(self, request: Callable[[Any], Any]) -> dict[str, Any]:
        """One request, once."""
        return self._guarded(lambda: request(self._service("v2").projects().locations()).execute(num_retries=0))

    def _told(self, question: Callable[[], Any]) -> Any:
        """An answer of cloud-tpu-client, which hides what went wrong in a ValueError's context."""
        try:
            return self._guarded(question)
        except ValueError as error:
            if error.__context__ is None:
                raise
            cause = error.__context__

            def again() -> Any:
                raise cause

            return self._guarded(again)

    def _guarded(self, action: Callable[[], Any]) -> Any:
        from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
        from googleapiclient.errors import HttpError, UnknownApiNameOrVersion
        from httplib2 import HttpLib2Error

        try:
            return action()
        except HttpError as error:
            raise _with_status(
                error_of_answer(int(error.resp.status), error.content), int(error.resp.status)
            ) from error
        except RefreshError as error:
            raise WrongCredentials(
                f"the credentials are not accepted ({_first(error)}): run gcloud auth application-default login, or "
                "let GOOGLE_APPLICATION_CREDENTIALS name another key"
            ) from error
        except (TransportError, HttpLib2Error, OSError, http.client.HTTPException) as error:
            self._services.clear()  # the connection may be what is broken
            raise Unavailable(f"the Cloud TPU API does not answer ({_first(error)}): try again") from error
        except (GoogleAuthError, UnknownApiNameOrVersion) as error:
            raise RequestRefused(
                f"the Cloud TPU API cannot be used ({_first(error)}): check project and address"
            ) from error

    def _service(self, version: str) -> Any:
        if version not in self._services:
            from google_auth_httplib2 import AuthorizedHttp
            from googleapiclient import discovery
            from httplib2 import Http

            self._services[version] = discovery.build(
                "tpu",
                version,
                http=AuthorizedHttp(self._credentials, http=Http(timeout=self._timeout_s)),
                discoveryServiceUrl=os.environ.get(_DISCOVERY_VARIABLE, DISCOVERY_URL),
                cache_discovery=False,
            )
        return self._services[version]

    def _client(self, name: str, zone: str) -> Any:
        from absl import flags
        from cloud_tpu_client import Client

        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # `recoverable` reads one, and there is no absl program here
        service = self._guarded(lambda: self._service("v1"))
        return Client(name, zone, self._project, credentials=self._credentials, service=service)


def check_installed() -> None:
    """Makes sure that the clients of the API are installed.

    Raises:
        NotInstalled: The extra is not installed.
    """
    try:
        import cloud_tpu_client
        import googleapiclient  # noqa: F401

        assert cloud_tpu_client
    except ImportError as error:
        raise NotInstalled(
            f"Cloud TPUs need packages of an extra, of which {error.name} is missing: pip install 'phalanx[tpu]'"
        ) from error


def _default_credentials() -> Any:
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except GoogleAuthError as error:
        raise WrongCredentials(
            f"there are no credentials for Google Cloud ({_first(error)}): run gcloud auth application-default login, "
            "or let GOOGLE_APPLICATION_CREDENTIALS name the key of a service account"
        ) from error
    return credentials


def _with_status(error: TpuError, status: int) -> TpuError:
    error.status = status  # type: ignore[attr-defined]
    return error


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0].strip().rstrip(".") or type(error).__name__
