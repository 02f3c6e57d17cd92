"""What a forecast is about: a fleet, how often it fails, and how long each part of the work takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """A training on a fleet of hosts. Times in seconds unless they say hours.

    Attributes:
        hosts: that the run uses.
        workers_per_host: training processes on each.
        spare_hosts: more hosts, which stand by with their workers.
        min_hosts: fewest that the run goes on with.
        hours: to look ahead.
        mtbf_h: hours between two losses of one host, on average; they are exponentially distributed.
        restart_s: until a lost host is back, with nothing in its memory.
        wave_every_h: hours between two waves of preemptions, on average; None: there are none.
        wave_share: of the hosts that a wave takes.
        notice_s: that they are given.
        standbys: started workers beyond the members.
        max_failures: that the run may have without sustained progress in between.
        reform: whether survivors keep their processes.
        step_s: of one step on all hosts; on fewer, the same batch takes proportionally longer.
        snapshot_every, checkpoint_every: in steps.
        snapshot_stall_s, checkpoint_stall_s: that each holds up the training.
        checkpoint_write_s: from its copy until it is durable.
        state_bytes: of one snapshot or checkpoint.
        detect_s: from a host's end to the supervisor's knowledge of it.
        exit_s: from the order to kill a worker to the knowledge of its end.
        start_s: at least, of a worker's start; drawn for each between this and twice as long.
        take_up_s: from an assignment to the first step.
        seed: what all chance is drawn from.
    """

    hosts: int
    mtbf_h: float
    hours: float
    workers_per_host: int = 1
    spare_hosts: int = 0
    min_hosts: int | None = None
    restart_s: float = 120.0
    wave_every_h: float | None = None
    wave_share: float = 0.1
    notice_s: float = 30.0
    standbys: int | None = None
    max_failures: int = 10
    reform: bool = False
    step_s: float = 0.3
    snapshot_every: int = 20
    checkpoint_every: int = 1000
    snapshot_stall_s: float = 0.005
    checkpoint_stall_s: float = 0.033
    checkpoint_write_s: float = 0.5
    state_bytes: int = 60_000_000
    detect_s: float = 10.0
    exit_s: float = 0.1
    start_s: float = 3.0
    take_up_s: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hosts", "workers_per_host", "snapshot_every", "checkpoint_every"):
            if int(getattr(self, name)) != getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)} must be a whole number: choose one")
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1: choose a larger value")
        for name in ("mtbf_h", "hours", "step_s", "wave_every_h"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name}={value:g} must be above 0 and finite: choose another value")
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value:g} must be 0 or more and finite: choose another value")
        if self.min_hosts is not None and not 1 <= self.min_hosts <= self.hosts:
            raise ValueError(f"min_hosts={self.min_hosts} must be from 1 to hosts={self.hosts}: change one of them")
        if not 0 < self.wave_share <= 1:
            raise ValueError(f"wave_share={self.wave_share:g} must be above 0 and at most 1: choose another value")

    @property
    def workers(self) -> int:
        """Members of a generation on all hosts."""
        return self.hosts * self.workers_per_host

    @property
    def num_standbys(self) -> int:
        """Started workers beyond the members: as many as in a run, unless told otherwise."""
        if self.standbys is not None:
            return self.standbys
        return self.spare_hosts * self.workers_per_host if self.reform else self.workers

    @property
    def stalled_step_s(self) -> float:
        """A step with its share of what snapshots and checkpoints cost."""
        stalls = self.snapshot_stall_s / self.snapshot_every + self.checkpoint_stall_s / self.checkpoint_every
        return self.step_s + stalls


_NOT_NEGATIVE = (
    "spare_hosts",
    "restart_s",
    "notice_s",
    "standbys",
    "max_failures",
    "snapshot_stall_s",
    "checkpoint_stall_s",
    "checkpoint_write_s",
    "state_bytes",
    "detect_s",
    "exit_s",
    "start_s",
    "take_up_s",
)
