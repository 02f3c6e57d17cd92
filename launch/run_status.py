"""How far a run is, read from its folder alone."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.run_lock import KEEPING, TRAINING, Holder, RunLockError, read_holder
from launch.detached.record import read_record
from trainer.goodput.account import REPLACEMENT
from trainer.goodput.reading import account_of
from trainer.goodput.sentence import sentence
from trainer.intervals.choice import newest_choices
from trainer.intervals.choice import sentence as interval_sentence
from trainer.observe.number_text import format_count, format_duration, format_number
from trainer.report.reading import read_run
from trainer.report.wall_time import status as journal_status
from trainer.report.wall_time import wall_time
from trainer.skipped import Skipped, read_skipped


@dataclass(frozen=True)
class RunStatus:
    """The state of a run.

    Attributes:
        run: the folder.
        state: running, finished, stopped, failed, interrupted for a run that was killed, or restarting for one that was
            and whose keeper is about to start it again.
        pid: of the process that runs it, if any.
        host: where that process runs.
        step: the last step in the metrics, 0 before the first.
        total_steps: where the run ends, None when that is not recorded.
        training: the last training line of metrics.jsonl.
        evaluation: the last evaluation line.
        checkpoints: steps of the checkpoints on disk, oldest first.
        seconds: wall time so far.
        silent_s: seconds since the last line of metrics.
        goodput: where the time went, as `Account.to_json` has it.
        detached: of a detached run the pid and the host of its keeper, None when it has none any more, how often it
            started the run again, how the last launcher died, and why the run was given up. None of other runs.
        skipped_records: how many records were left out, the bound, and the first of them; None for none.
        intervals: how often the state is saved, as far as the run has chosen it: snapshots, checkpoints.
    """

    run: str
    state: str
    pid: int | None
    host: str | None
    step: int
    total_steps: int | None
    training: dict[str, Any]
    evaluation: dict[str, Any]
    checkpoints: list[int]
    seconds: float | None
    silent_s: float | None
    goodput: dict[str, Any]
    intervals: dict[str, dict[str, Any]]
    detached: dict[str, Any] | None = None
    skipped_records: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """As one JSON object; JSON has no NaN, so that and infinity are named."""
        return {key: _finite(value) for key, value in asdict(self).items()}


def read_status(folder: Path) -> RunStatus:
    """Read a run folder.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    record = read_run(folder)
    holder, keeper = _holder(folder, TRAINING), _holder(folder, KEEPING)
    ended = journal_status(record.journal)
    state = "running" if holder else "restarting" if keeper else "interrupted" if ended == "unfinished" else ended
    training = record.training[-1] if record.training else {}
    evaluation = record.evaluations[-1] if record.evaluations else {}
    last = max((line["time"] for line in (training, evaluation) if "time" in line), default=None)
    account = account_of(record.journal, record.spans, time.time() if holder else None)
    totals = [event["total_steps"] for event in record.journal if isinstance(event.get("total_steps"), int)]
    return RunStatus(
        run=str(folder),
        state=state,
        pid=holder.process.pid if holder else None,
        host=holder.process.host if holder else None,
        step=max(training.get("step", 0), evaluation.get("step", 0)),
        total_steps=totals[-1] if totals else record.config.get("train", {}).get("steps"),
        training=training,
        evaluation=evaluation,
        checkpoints=[checkpoint.step for checkpoint in record.checkpoints if checkpoint.state == "kept"],
        seconds=wall_time(record).duration,
        silent_s=time.time() - last if last is not None and holder else None,
        goodput=account.to_json() | {"sentence": sentence(account)},
        detached=_detached(folder, keeper),
        skipped_records=skipped.to_json() if (skipped := read_skipped(record.journal)) else None,
        intervals={
            choice["of"]: {name: choice[name] for name in ("steps", "seconds", "cost", "mtbf", "reason")}
            for choice in newest_choices(record.journal)
        },
    )


def _holder(folder: Path, lock: str) -> Holder | None:
    try:
        return read_holder(folder, lock)
    except RunLockError:
        return None


def _detached(folder: Path, keeper: Holder | None) -> dict[str, Any] | None:
    record = read_record(folder)
    if record is None:
        return None
    return {
        "pid": keeper.process.pid if keeper else None,
        "host": keeper.process.host if keeper else None,
        "restarts": record.restarts,
        "last_death": record.death,
        "given_up": record.reason,
    }


def describe(status: RunStatus) -> str:
    """The status as a few lines for people."""
    rows = [("run", status.run), ("state", status.state)]
    if status.pid is not None:
        rows[-1] = ("state", f"running, process {status.pid} on {status.host}")
    if status.detached is not None:
        rows.append(("detached", _describe_detached(status.detached)))
    rows.append(("step", _progress(status.step, status.total_steps)))
    if status.training:
        rows.append(("training", _metrics(status.training)))
        if "examples_per_s" in status.training:
            rows.append(("speed", f"{format_count(status.training['examples_per_s'])} samples/s"))
    if status.evaluation:
        rows.append((str(status.evaluation["split"]), _metrics(status.evaluation)))
    if status.skipped_records is not None:
        first, *more = Skipped.from_json(status.skipped_records).lines()
        rows += [("skipped", first), *(("", line) for line in more)]
    rows.append(("checkpoints", ", ".join(map(str, status.checkpoints)) or "none"))
    for number, (of, choice) in enumerate(status.intervals.items()):
        rows.append(("" if number else "saving", interval_sentence({"of": of, **choice})))
    if status.seconds is not None:
        rows.append(("time", format_duration(status.seconds)))
    if status.goodput["goodput"] is not None:
        rows.append(("goodput", status.goodput["sentence"].removeprefix("goodput ")))
    if status.goodput["failures"]:
        last = status.goodput["failures"][-1]
        state = f"training again after {format_duration(last['down_s'])}" if last["is_over"] else "not over yet"
        if last["cause"] == REPLACEMENT:
            replaced_s = last["replaced_s"]
            when = "not replaced yet" if replaced_s is None else f"replaced after {format_duration(replaced_s)}"
            state = f"{when}, the others went on"
        rows.append(("last failure", f"{last['what']}; {state}"))
    if status.silent_s is not None:
        rows.append(("last line", f"{format_duration(status.silent_s)} ago"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _progress(step: int, total_steps: int | None) -> str:
    if not total_steps:
        return str(step)
    # A run that has been shortened is over, and what it has done stays.
    return f"{step}/{total_steps}" if step <= total_steps else f"{step}, beyond the end at {total_steps}"


def _describe_detached(detached: dict[str, Any]) -> str:
    if detached["given_up"] is not None:
        return f"given up: {detached['given_up']}"
    kept = "over" if detached["pid"] is None else f"kept by process {detached['pid']} on {detached['host']}"
    if not detached["restarts"]:
        return kept
    times = "once" if detached["restarts"] == 1 else f"{detached['restarts']} times"
    return f"{kept}, started again {times} (the launcher {detached['last_death']})"


_NOT_METRICS = {"time", "examples", "examples_per_s", "data_wait", "split", "learning_rate"}


def _metrics(line: dict[str, Any]) -> str:
    numbers = {name: value for name, value in line.items() if name not in _NOT_METRICS and not isinstance(value, str)}
    step = numbers.pop("step", None)
    text = "  ".join(f"{name} {format_number(value)}" for name, value in numbers.items())
    return f"{text}  (step {step})"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
