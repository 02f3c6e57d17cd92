"""What a supervisor is told before the first event: plain numbers, which the journal records for the replay."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """How many workers a generation may have, and how long it waits for more.

    Attributes:
        min: the fewest workers.
        max: the most workers.
        divides: only worker counts that divide this number are allowed; None: all.
        gather_s: seconds that the first generation waits for `max` workers before it takes fewer.
        replace_within_s: seconds that a later one waits for as many workers as the last had before it takes fewer.
        grow_within_s: a generation that can grow does so at its next boundary, or after this many seconds.
        keep_s: seconds that a generation runs before it may be ended to grow.
        fewest_survivors: with so many members, those that keep their processes go on where no others are ready; None:
            with `min`.
    """

    min: int = 1
    max: int = 1
    divides: int | None = None
    gather_s: float = 10.0
    replace_within_s: float = 30.0
    grow_within_s: float = 60.0
    keep_s: float = 60.0
    fewest_survivors: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max:
            raise ValueError(f"workers need 1 <= min <= max, not min={self.min} and max={self.max}")
        if self.fewest_survivors is not None and not 1 <= self.fewest_survivors <= self.min:
            raise ValueError(f"fewest_survivors={self.fewest_survivors} must be from 1 to min={self.min}")
        if self.largest_within(self.max) is None:
            raise ValueError(
                f"no worker count from {self.min} to {self.max} divides {self.divides}: "
                "change cluster.workers or train.virtual_workers"
            )

    def largest_within(self, available: int, survive: bool = False) -> int | None:
        """The largest allowed worker count that `available` workers can fill; None when there is none.

        Args:
            available: workers.
            survive: whether members of the last generation are among them.

        >>> Sizes(min=2, max=8, divides=8).largest_within(7)
        4
        >>> Sizes(min=8, max=8, fewest_survivors=1).largest_within(7, survive=True)
        7
        """
        fewest = self.fewest_survivors if survive and self.fewest_survivors is not None else self.min
        for size in range(min(available, self.max), fewest - 1, -1):
            if self.divides is None or self.divides % size == 0:
                return size
        return None


@dataclass(frozen=True)
class Budgets:
    """How often each kind of trouble may happen without sustained progress in between. None: without limit.

    Attributes:
        failures: exits, hangs and lost hosts. One more ends the run.
        preemptions: hosts taken away with notice. One more ends the run.
        resizes: generations ended to grow. After that the run keeps its size.
        give_back_after_s: seconds of progress without trouble after which all three are as new; progress for a shorter
            time gives its share of the failures back.
    """

    failures: int | None = 10
    preemptions: int | None = 100
    resizes: int | None = 100
    give_back_after_s: float = 1800.0


@dataclass(frozen=True)
class BackOff:
    """Waiting between failures that follow each other without progress. The first goes on at once.

    Attributes:
        first_s: seconds to wait after the second failure; each later one doubles them.
        longest_s: seconds that are never exceeded.
    """

    first_s: float = 1.0
    longest_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after this many failures in a row.

        >>> [BackOff(first_s=1, longest_s=5).delay_s(n) for n in range(6)]
        [0.0, 0.0, 1.0, 2.0, 4.0, 5.0]
        """
        if failures < 2:
            return 0.0
        # The exponent is bounded as well, for a float holds no 2 ** 1100.
        return float(min(self.longest_s, self.first_s * 2.0 ** min(failures - 2, 60)))


@dataclass(frozen=True)
class HostLimits:
    """When a host is set aside.

    Attributes:
        failures: fewest failures within `window_s` that set it aside.
        chance: so rare it must be that failures which strike all hosts alike strike one so often (0 to 1).
        window_s: seconds after which a failure is forgotten.
        aside_s: seconds until it is used again.
    """

    failures: int = 3
    chance: float = 0.05
    window_s: float = 600.0
    aside_s: float = 600.0


@dataclass(frozen=True)
class HangLimits:
    """How long a member may show no progress.

    Attributes:
        floor_s: seconds that it may always take between two reports of steps.
        factor: times the run's own median interval between reports that it may take, when that is more.
        form_s: seconds from the assignment to the first report.
        restore_s, compile_s, evaluate_s, checkpoint_s, export_s: seconds that the phase may take; "build" as "restore".
        silent_s: seconds without any sign of life, heartbeats included, after which a worker counts as frozen.
        straggler_ratio: a member that takes this many times the median member's time for a step is announced; its own
            time, where it tells that apart from waiting for the others. None: nobody looks for it.
        straggler_floor_s: seconds a step that it must take longer, because the shortest steps differ by chance.
        replace_stragglers: whether the host of such a member is set aside, when others have room for all members.
    """

    floor_s: float = 30.0
    factor: float = 10.0
    form_s: float = 120.0
    restore_s: float = 600.0
    compile_s: float = 1800.0
    evaluate_s: float = 3600.0
    checkpoint_s: float = 900.0
    export_s: float = 1800.0
    silent_s: float = 15.0
    straggler_ratio: float | None = 1.5
    straggler_floor_s: float = 0.01
    replace_stragglers: bool = False


@dataclass(frozen=True)
class Patience:
    """How long the supervisor waits for what it asked for, all in seconds.

    Attributes:
        start_s: from starting a worker to its being ready.
        stop_s: from asking a worker to save and end to killing it.
        finish_s: from the end of the training to killing members that do not exit.
        exit_s: from a member's exit with code 0 to its word that it has completed, which may arrive later.
        kill_repeat_s: between two kills of a worker whose exit is not known yet.
        kill_s: after which a host whose agent does not answer kills is given back.
        dump_s: from dumping stacks to killing, so that they reach the log.
        drain_s: before the end of a notice by which members save and leave, replaced or not.
        resources_s: that a run without enough hosts waits for them; None: for ever.
        spare_s: standbys that no generation waits for are started when the newest one has completed a step, or after
            this time, because their start takes the processors from it. 0: at once.
        blind_s: a longer gap between events means that the supervisor itself was away, and accuses nobody of silence.
    """

    start_s: float = 180.0
    stop_s: float = 60.0
    finish_s: float = 30.0
    exit_s: float = 2.0
    kill_repeat_s: float = 2.0
    kill_s: float = 60.0
    dump_s: float = 2.0
    drain_s: float = 15.0
    resources_s: float | None = None
    spare_s: float = 0.0
    blind_s: float = 15.0


@dataclass(frozen=True)
class Settings:
    """All settings of a supervisor.

    Attributes:
        sizes, budgets, back_off, hosts, hangs, patience: see there.
        standbys: started workers to keep ready beyond the members, over all hosts.
        reform: whether survivors of a broken generation form the next one in their old processes. Otherwise they are
            killed, because their collectives die with a process.
        replaceable_from: members of this rank and above serve the others, and are replaced one by one while the
            generation goes on; None: the death of any member ends it.
        last_generation: the newest one of an earlier launch of the run; the first of this one has the number after it.

    >>> Settings.from_json(Settings(standbys=2).to_json()) == Settings(standbys=2)
    True
    """

    sizes: Sizes = field(default_factory=Sizes)
    budgets: Budgets = field(default_factory=Budgets)
    back_off: BackOff = field(default_factory=BackOff)
    hosts: HostLimits = field(default_factory=HostLimits)
    hangs: HangLimits = field(default_factory=HangLimits)
    patience: Patience = field(default_factory=Patience)
    standbys: int = 1
    reform: bool = False
    replaceable_from: int | None = None
    last_generation: int = 0

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Settings":
        """Reads what `to_json` gives; what is missing has its default.

        Raises:
            TypeError: a name is unknown.
            ValueError: a value is out of its range.
        """
        sections = {
            section.name: section.default_factory for section in fields(cls) if callable(section.default_factory)
        }
        return cls(**{name: sections[name](**value) if name in sections else value for name, value in content.items()})
