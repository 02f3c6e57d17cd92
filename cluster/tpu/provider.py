"""What gives slices: the interface, what passes through it, and how it fails."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

Purchase = Literal["on-demand", "spot", "reserved"]

RUN_LABEL = "phalanx-run"
"""The label by which Phalanx knows its slices; its value names the run."""

EXPIRES_LABEL = "phalanx-expires"
"""Seconds since 1970 after which a slice must be gone."""

REQUEST_LABEL = "phalanx-request"
"""Tells one request for a slice of a name from the next."""


class State(Enum):
    """Where a slice is in its life."""

    QUEUED = "queued"
    CREATING = "creating"
    READY = "ready"
    REPAIRING = "repairing"
    STOPPED = "stopped"
    PREEMPTED = "preempted"
    FAILED = "failed"
    DELETING = "deleting"

    @property
    def is_dead(self) -> bool:
        """Whether it will never be ready: it is deleted, and another one made."""
        return self in (State.STOPPED, State.PREEMPTED, State.FAILED)


@dataclass(frozen=True)
class SliceRequest:
    """A slice to be made, or several that belong together.

    Attributes:
        name: of the slice in its zone; of several, they are called NAME-0, NAME-1 ...
        accelerator: such as "v5litepod-4".
        runtime_version: of the software of the TPU's hosts.
        purchase: how it is paid for.
        num_slices: that are made together or not at all.
        queued: whether it waits in a queue where there is no room; without it there is an error instead.
        reservation: full name of the reservation, with purchase="reserved".
        labels: for whoever looks; Phalanx adds its own.
        startup_script: that each host runs as root whenever it boots.

    Raises:
        ValueError: the name or a label is none that the API takes, or several slices are not queued.
    """

    name: str
    zone: str
    accelerator: str
    runtime_version: str
    purchase: Purchase = "on-demand"
    num_slices: int = 1
    queued: bool = True
    network: str | None = None
    subnetwork: str | None = None
    external_ips: bool = True
    service_account: str | None = None
    reservation: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    startup_script: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", self.name):
            raise ValueError(
                f"the slice name {self.name!r} must be at most 40 lower-case letters, digits and dashes, and begin "
                "with a letter: choose another"
            )
        for key, value in self.labels.items():
            if not re.fullmatch(r"[a-z][-_a-z0-9]{0,62}", key) or not re.fullmatch(r"[-_a-z0-9]{0,63}", value):
                raise ValueError(
                    f"the label {key}={value} must be of lower-case letters, digits, dashes and underscores, at most "
                    "63 each: choose another"
                )
        if self.num_slices < 1 or (self.num_slices > 1 and not self.queued):
            raise ValueError(
                f"{self.num_slices} slices must be asked for with a queued request: set queued, or ask for one"
            )
        if self.reservation is not None and self.purchase != "reserved":
            raise ValueError(
                f"the reservation {self.reservation} must go with purchase=reserved, not {self.purchase}: set it"
            )


@dataclass(frozen=True)
class Slice:
    """A slice, or a request for some that waits, as the provider reports it.

    Attributes:
        name: of the request: of several slices that belong together it is the common one.
        reason: why it is not ready, for the person; empty where there is nothing to say.
        hosts: addresses of the hosts of all its slices, in their order; complete when it is ready.
        created: seconds since 1970, 0 where the provider does not say.
    """

    name: str
    zone: str
    state: State
    reason: str = ""
    accelerator: str = ""
    purchase: Purchase = "on-demand"
    hosts: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0

    @property
    def run(self) -> str | None:
        """The run that it was made for; None for one that is not Phalanx's."""
        return self.labels.get(RUN_LABEL)

    @property
    def expires(self) -> float | None:
        """Seconds since 1970 after which it must be gone."""
        text = self.labels.get(EXPIRES_LABEL, "")
        return float(text) if text.isdigit() else None


@dataclass(frozen=True)
class Health:
    """How a slice is.

    Attributes:
        healthy: whether the provider says so.
        description: what is wrong.
        symptoms: such as OUT_OF_MEMORY, newest last.
        maintenance: whether its hosts are about to be taken for maintenance.
        recoverable: whether it may become well again without being made anew.
    """

    healthy: bool
    description: str = ""
    symptoms: tuple[str, ...] = ()
    maintenance: bool = False
    recoverable: bool = True


class TpuError(RuntimeError):
    """A provider refused or failed. The message is a sentence for the person."""


class WrongCredentials(TpuError):
    """The credentials are missing, or do not allow what was asked."""


class RequestRefused(TpuError):
    """The request is wrong and will stay so."""


class NoQuota(TpuError):
    """The project may not have so much."""


class NoCapacity(TpuError):
    """There is no room in that zone now."""


class NameTaken(TpuError):
    """There is something of that name."""


class Unavailable(TpuError):
    """The provider did not answer or asked for patience: whether it acted is not known. Try again."""


class TpuProvider(Protocol):
    """Gives slices. One request a call, without waiting for what follows and without trying again."""

    def create(self, request: SliceRequest) -> None:
        """Asks for a slice.

        Raises:
            TpuError: it is refused, or nobody knows.
        """
        ...

    def find(self, name: str, zone: str) -> Slice | None:
        """The slice of a name, in whatever state; None where there is none.

        Raises:
            NoCapacity, NoQuota: There is none, because the last request for it came to nothing; said once.
            TpuError: it cannot be told.
        """
        ...

    def list(self, zone: str) -> list[Slice]:
        """All slices of a zone, also those of others.

        Raises:
            TpuError: it cannot be told.
        """
        ...

    def delete(self, name: str, zone: str) -> None:
        """Asks for the end of a slice; of one that is not there it is no error.

        Raises:
            TpuError: it is refused, or nobody knows.
        """
        ...

    def health(self, name: str, zone: str) -> Health:
        """How a slice is.

        Raises:
            TpuError: it cannot be told.
        """
        ...
