"""The `cluster` section: where the workers run, how many of them, and what is ready for the death of one."""

import re
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)


def _seconds(text: object) -> float:
    if isinstance(text, float):  # from the command line of a program, never from a file
        return text
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)s", text) if isinstance(text, str) else None
    if match is None or float(match[1]) == 0:
        raise ValueError('must be a number of seconds above zero with its unit, as in "30s"')
    return float(match[1])


Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    PlainSerializer(lambda seconds: f"{seconds:g}s", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?s$", "examples": ["30s"]}),
]


def _hours(text: object) -> float:
    if isinstance(text, float):
        return text
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)h", text) if isinstance(text, str) else None
    if match is None or float(match[1]) == 0:
        raise ValueError('must be a number of hours above zero with its unit, as in "1000h"')
    return float(match[1])


Hours = Annotated[
    float,
    BeforeValidator(_hours),
    PlainSerializer(lambda hours: f"{hours:g}h", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?h$", "examples": ["1000h"]}),
]


def _steps(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError("must be a whole number of steps above zero, auto, or null")


StepsOrAuto = Annotated[
    int | Literal["auto"] | None,
    PlainValidator(lambda value: value if value == "auto" else _steps(value)),
    WithJsonSchema({"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"const": "auto"}, {"type": "null"}]}),
]


class WorkerRange(BaseModel):
    """A run that goes on with fewer workers when hosts leave, and with more when they come."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: PositiveInt = Field(default=1, description="fewest training processes; with fewer the run waits")
    max: PositiveInt = Field(description="most training processes")

    @model_validator(mode="after")
    def _is_a_range(self) -> "WorkerRange":
        if self.min > self.max:
            raise ValueError(
                f"cluster.workers.min={self.min} must be at most cluster.workers.max={self.max}: exchange them"
            )
        return self

    @classmethod
    def written_out(cls, number: object) -> dict[str, object]:
        """The keys that a plain number stands for, so that one of them can be set alone."""
        return {"min": number, "max": number}


def _form(value: object) -> str:
    return "name=range" if isinstance(value, dict | WorkerRange) else "name=number"


# The tags look like those of sections chosen by name, which messages about a config leave out of a setting's place.
Workers = Annotated[
    Annotated[PositiveInt, Tag("name=number")] | Annotated[WorkerRange, Tag("name=range")], Discriminator(_form)
]


class LocalConfig(BaseModel):
    """How this machine plays several hosts, to try out what happens when one is lost, leaves or comes back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: PositiveInt = Field(
        default=1,
        description="hosts that this machine plays; with more than one, each is a process: SIGTERM gives it notice, "
        "SIGKILL takes it away",
    )
    return_after: Seconds | None = Field(
        default=30.0, description="after which a host that is gone comes back; null: it does not"
    )


class RayConfig(BaseModel):
    """Which nodes of a Ray cluster the run takes, and how much of each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = Field(
        default=None,
        description="host:port of the Ray cluster's head; auto: RAY_ADDRESS, else the one that runs on this machine; "
        "null: the same, else one that is started here and ends with the run",
    )
    cpus_per_worker: PositiveFloat = Field(
        default=1.0, description="CPUs that Ray keeps free for each worker, which also uses so many threads"
    )
    gpus_per_worker: NonNegativeInt = Field(default=0, description="GPUs of each worker")
    workers_per_node: PositiveInt | None = Field(
        default=None, description="most workers on one node; null: as many as fit"
    )
    spare_nodes: NonNegativeInt = Field(
        default=1,
        description="nodes that may be lost without a wait for others: so many more are taken, if there are any",
    )
    wait: Seconds | None = Field(
        default=600.0,
        description="how long the run waits for nodes with enough room before it gives up; null: for ever",
    )

    @field_validator("address")
    @classmethod
    def _is_no_client_address(cls, address: str | None) -> str | None:
        if address is not None and "://" in address:
            raise ValueError(
                f"cluster.ray.address={address} must be host:port, because workers have to reach this machine: start "
                "phalanx on a machine of the Ray cluster"
            )
        return address


class ClusterConfig(BaseModel):
    """One process on this machine, or several, there or on a Ray cluster, that a supervisor watches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local", "ray"] = Field(
        default="local", description="where workers run: on this machine, or on the nodes of a Ray cluster"
    )
    workers: Workers = Field(
        default=1, description="training processes: a number, or {min: 1, max: 4} for as many as there is room for"
    )
    standbys: NonNegativeInt | None = Field(
        default=None,
        description="started processes that wait to take a dead worker's place; without it one for each worker, "
        "because a death ends them all, or just one with strategy.name=elastic",
    )
    rehearse: bool = Field(
        default=True,
        description="whether standbys build the training once, take a step on their CPU and forget it, so that they "
        "need a fraction of the time when they step in",
    )
    snapshot_every: StepsOrAuto = Field(
        default="auto",
        description="steps between two copies of the state in the hosts' memory; auto: what costs least by what one "
        "holds the steps up and how often the run fails, within checkpoint.max_overhead and about 5s; null: only "
        "checkpoints; with one worker, none",
    )
    expected_mtbf: Hours = Field(
        default=1000.0,
        description="mean time between failures of one host, in hours, that intervals are chosen for until the run has "
        "seen its own; spot machines: about 24h",
    )
    max_failures: NonNegativeInt = Field(
        default=10, description="most failures without sustained progress in between before the run is given up"
    )
    max_preemptions: NonNegativeInt = Field(
        default=100, description="most hosts or workers taken away with notice, counted in the same way"
    )
    max_resizes: NonNegativeInt = Field(
        default=100, description="most generations ended to grow, counted in the same way; then the size stays"
    )
    shrink_after: Seconds = Field(
        default=30.0,
        description="how long a run waits for as many workers as it had before it goes on with fewer",
    )
    grow_after: Seconds = Field(
        default=60.0, description="how long workers train before they may be interrupted to become more"
    )
    notice: Seconds = Field(
        default=30.0, description="between SIGTERM to a host and its end, where the cluster does not say"
    )
    hang_after: Seconds = Field(
        default=30.0,
        description="without progress, or ten times as long as the run's own steps take, a worker counts as hung",
    )
    straggler_ratio: Annotated[float, Field(gt=1)] | None = Field(
        default=1.5,
        description="a worker whose own part of a step takes so many times the others' is reported; null: nobody looks",
    )
    replace_stragglers: bool = Field(
        default=False, description="whether the host of such a worker is set aside when others have room"
    )
    local: LocalConfig = Field(default=LocalConfig(), description="hosts that this machine plays")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None,
        description="serve Prometheus metrics at /metrics on this port while several workers train; 0: any free port, "
        "which is said; null: none",
    )
    metrics_address: str = Field(default="127.0.0.1", description="where metrics_port listens; 0.0.0.0: everywhere")
    ray: RayConfig = Field(default=RayConfig(), description="the Ray cluster, with kind=ray")

    @property
    def min_workers(self) -> int:
        """The fewest workers of a generation."""
        return self.workers.min if isinstance(self.workers, WorkerRange) else self.workers

    @property
    def max_workers(self) -> int:
        """The most workers of a generation."""
        return self.workers.max if isinstance(self.workers, WorkerRange) else self.workers
