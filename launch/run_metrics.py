"""What Prometheus is told of a run that is supervised: made anew from the ledger and the run folder at every scrape."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from launch.run_config import RunConfig
from launch.run_watch import RunWatch
from trainer.goodput.phases import LOST, PHASES, PRODUCTIVE
from trainer.goodput.supervised import Ledger
from trainer.observe.tail import Tail
from trainer.run_folder import RunFolder

_CAUSES = ("failure", "hang", "host", "preemption", "resize", "launcher")


class RunMetrics(Collector):
    """Gives the metrics of one run.

    Counters never go back, although the ledger may: time that turns out to be lost work has been counted as productive
    before, and is counted as lost besides.

    Args:
        watch: knows the ledger.
        config: of the run.
        folder: of the run.
        clock: seconds since the epoch.
    """

    def __init__(
        self, watch: RunWatch, config: RunConfig, folder: RunFolder, clock: Callable[[], float] = time.time
    ) -> None:
        self._watch, self._config, self._folder, self._clock = watch, config, folder, clock
        self._metrics = Tail(folder.metrics)
        self._newest: dict[str, float] = {}
        self._highest: dict[tuple[str, str], float] = {}

    def collect(self) -> Iterator[Metric]:
        """All metrics, as of now."""
        account = self._watch.account()
        with self._watch.lock:
            ledger = self._watch.ledger
            yield self._info()
            yield from self._progress(ledger, account.steps)
            yield from self._group(ledger)
            yield from self._failures(ledger)
            yield from self._ages(ledger)
        seconds = CounterMetricFamily("phalanx_time_seconds", "Wall time of the run by phase.", labels=["phase"])
        spent = account.seconds
        for phase in PHASES:
            # Lost work was productive when it was done.
            value = spent.get(phase, 0.0) + (spent.get(LOST, 0.0) if phase == PRODUCTIVE else 0.0)
            seconds.add_metric([phase], self._never_less("time", phase, value))
        yield seconds
        if account.goodput is not None:
            yield _gauge("phalanx_goodput_ratio", "Share of the wall time in steps that count.", account.goodput)

    def _info(self) -> Metric:
        config = self._config
        labels = {
            "run": config.run.name,
            "model": config.model.name,
            "data": config.data.name,
            "strategy": config.strategy.name,
            "cluster": config.cluster.kind,
        }
        return InfoMetricFamily("phalanx_run", "What is trained.", labels)

    def _progress(self, ledger: Ledger, steps: int) -> Iterator[Metric]:
        for line in self._metrics.read():
            if "split" not in line:
                self._newest = {name: value for name, value in line.items() if isinstance(value, int | float)}
        yield _gauge("phalanx_step", "Completed steps that count.", steps)
        if self._config.train.steps is not None:
            yield _gauge("phalanx_target_step", "Where the run ends.", self._config.train.steps)
        if ledger.step_s is not None:
            yield _gauge("phalanx_step_duration_seconds", "Time of a step, lately.", ledger.step_s)
        for name, metric, text in (
            ("loss", "phalanx_training_loss", "Of the newest logged steps."),
            ("examples_per_s", "phalanx_examples_per_second", "Of the newest logged steps."),
        ):
            if name in self._newest:
                yield _gauge(metric, text, self._newest[name])

    def _group(self, ledger: Ledger) -> Iterator[Metric]:
        number = ledger.generation.number if ledger.generation else 0
        yield _gauge("phalanx_generation", "Membership that trains; 0 before the first.", number)
        workers = GaugeMetricFamily("phalanx_workers", "Worker processes by state.", labels=["state"])
        for state, count in ledger.fleet.states(number).items():
            workers.add_metric([state], count)
        yield workers

    def _failures(self, ledger: Ledger) -> Iterator[Metric]:
        restarts = CounterMetricFamily("phalanx_restarts", "Generations that followed another.", labels=["cause"])
        for cause in dict.fromkeys((*_CAUSES, *ledger.restarts)):
            restarts.add_metric([cause], self._never_less("restarts", cause, ledger.restarts.get(cause, 0)))
        yield restarts
        yield CounterMetricFamily(
            "phalanx_replacements",
            "Workers replaced while their generation went on.",
            self._never_less("replacements", "", ledger.replacements),
        )
        lost = sum(failure.steps_lost or 0 for failure in ledger.failures)
        yield CounterMetricFamily(
            "phalanx_lost_steps", "Steps that had to be done again.", self._never_less("steps", "", lost)
        )
        if ledger.failures:
            last = ledger.failures[-1]
            yield _gauge("phalanx_last_failure_timestamp_seconds", "When it was known.", last.at)
            yield _gauge("phalanx_last_failure_downtime_seconds", "Time without steps because of it.", last.down_s)

    def _ages(self, ledger: Ledger) -> Iterator[Metric]:
        if ledger.snapshot is not None:
            step, at = ledger.snapshot
            yield _gauge("phalanx_snapshot_step", "Of the newest copy in a host's memory.", step)
            yield _gauge("phalanx_snapshot_age_seconds", "Of that copy.", max(0.0, self._clock() - at))
        newest = max(self._folder.checkpoints.glob("step-*"), key=lambda path: path.name, default=None)
        if newest is not None and (age := self._age(newest)) is not None:
            yield _gauge("phalanx_checkpoint_step", "Of the newest on the disk.", int(newest.name.split("-")[1]))
            yield _gauge("phalanx_checkpoint_age_seconds", "Of that checkpoint.", age)

    def _age(self, path: Path) -> float | None:
        try:
            return max(0.0, self._clock() - path.stat().st_mtime)
        except OSError:  # a newer one has just replaced it
            return None

    def _never_less(self, counter: str, label: str, value: float) -> float:
        key = (counter, label)
        self._highest[key] = max(value, self._highest.get(key, 0.0))
        return self._highest[key]


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)
