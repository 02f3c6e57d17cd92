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
        description="nodes that may be lost without a wait for others: so many more are taken, if there are any; of "
        "slices, none",
    )
    slice: str | None = Field(
        default=None,
        min_length=1,
        description="type of a Cloud TPU slice, such as v5litepod-16, that the run takes whole: all its nodes or none, "
        "with the worker on the first one",
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


class TpuConfig(BaseModel):
    """The Cloud TPU slice that a run makes for itself, and gives back at its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accelerator: tuple[str, ...] = Field(
        default=(), description="types of slice, such as v5litepod-4, or a list of them, tried in this order"
    )
    zones: tuple[str, ...] = Field(
        default=(),
        description="such as us-central1-a; several are tried in this order, each with every type; none: "
        "CLOUDSDK_COMPUTE_ZONE",
    )
    project: str | None = Field(default=None, description="Google Cloud project; null: GOOGLE_CLOUD_PROJECT")
    runtime_version: str = Field(default="tpu-ubuntu2204-base", description="of the hosts' software")
    purchase: Literal["on-demand", "spot", "reserved"] = Field(
        default="on-demand", description="how it is paid for; spot is cheaper, and may be taken away"
    )
    reservation: str | None = Field(default=None, description="full name of the reservation, with purchase=reserved")
    queued: bool = Field(default=True, description="whether the request waits in a queue where there is no room")
    network: str | None = Field(default=None, description="of the hosts")
    subnetwork: str | None = Field(default=None, description="of the hosts")
    external_ips: bool = Field(default=True, description="whether hosts have public addresses")
    service_account: str | None = Field(default=None, description="that the hosts act as")
    setup: str = Field(
        default="", description="shell commands that a host runs before it joins, such as those that mount run.dir"
    )
    package: str | None = Field(
        default="auto",
        description="what pip installs as Phalanx on a host: auto is this version, else a wheel's path there; null: "
        "nothing, the hosts' software has it",
    )
    python: str = Field(default="/opt/phalanx/bin/python", description="the interpreter on a host that has Phalanx")
    listen: str | None = Field(
        default=None,
        description="address of this machine that the hosts reach, and nobody else should; null: the one that this "
        "machine reaches others from",
    )
    max_run: Hours = Field(
        default=24.0, description="after which a slice is deleted, by its own hosts where nobody else does"
    )
    wait: Seconds | None = Field(
        default=3600.0, description="how long the run waits for a slice before it gives up; null: for ever"
    )

    @field_validator("accelerator", "zones", mode="before")
    @classmethod
    def _is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class ClusterConfig(BaseModel):
    """One process on this machine, or several, there or on a Ray cluster, that a supervisor watches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local", "ray", "tpu"] = Field(
        default="local",
        description="where workers run: on this machine, on the nodes of a Ray cluster, or on a Cloud TPU slice that "
        "the run makes and gives back",
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
    tpu: TpuConfig = Field(default=TpuConfig(), description="the slice, with kind=tpu")

    @model_validator(mode="after")
    def _one_process_drives_a_slice_of_ray(self) -> "ClusterConfig":
        problems = []
        if self.kind != "ray" or self.ray.slice is None:
            return self
        if self.max_workers > 1:
            problems.append(
                f"cluster.workers={self.max_workers} must be 1 with cluster.ray.slice, where one process drives all "
                "chips: remove it, and choose a larger slice"
            )
        if self.ray.gpus_per_worker:
            problems.append(
                f"cluster.ray.gpus_per_worker={self.ray.gpus_per_worker} must be 0 with cluster.ray.slice, whose nodes "
                "have TPU chips: remove it"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @model_validator(mode="after")
    def _has_a_slice(self) -> "ClusterConfig":
        if self.kind != "tpu":
            return self
        problems = []
        if not self.tpu.accelerator:
            problems.append("cluster.kind=tpu must know a type of slice: set cluster.tpu.accelerator=v5litepod-4")
        if self.max_workers > 1:
            problems.append(
                f"cluster.workers={self.max_workers} must be 1 with cluster.kind=tpu, where one process drives all "
                "chips of the slice: remove it, and choose a larger cluster.tpu.accelerator"
            )
        if self.tpu.reservation is not None and self.tpu.purchase != "reserved":
            problems.append(
                f"cluster.tpu.reservation={self.tpu.reservation} must go with cluster.tpu.purchase=reserved: set it"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def min_workers(self) -> int:
        """The fewest workers of a generation."""
        return self.workers.min if isinstance(self.workers, WorkerRange) else self.workers

    @property
    def max_workers(self) -> int:
        """The most workers of a generation."""
        return self.workers.max if isinstance(self.workers, WorkerRange) else self.workers
