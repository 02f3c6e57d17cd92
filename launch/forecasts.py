"""What `phalanx simulate` says: the fleet's constants from a run, and the forecast as a table."""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from cluster.simulation.forecast import Forecast
from cluster.simulation.workload import Workload
from launch.exit_code import RequestError
from trainer.observe.journal import read_journal
from trainer.run_folder import RunFolder

_HOUR_S = 3600.0
# Where each default comes from: a figure that was measured names its place, the others are assumptions.
SOURCES = {
    "step_s": "assumed: your step decides it",
    "state_bytes": "assumed: 5 million parameters with Adam",
    "restart_s": "assumed: a new machine with its image in place",
    "detect_s": "assumed: a lease of ten seconds",
    "start_s": "measured: a worker imports TensorFlow on an idle machine of 2 cores",
    "take_up_s": "measured there: strategy, model, restore from memory and first step of a small CNN",
    "exit_s": "measured there: a kill is known to the agent after milliseconds; the rest is for the network",
    "snapshot_stall_s": "measured there: a small model, copied beside the loop",
    "checkpoint_stall_s": "measured there: 5 million parameters",
    "checkpoint_write_s": "assumed: 120 MB/s of storage",
}


def measured_constants(folder: RunFolder) -> dict[str, float]:
    """The constants that a run's journal tells of, by their names in a workload.

    Raises:
        RequestError: it tells of none.
    """
    samples: dict[str, list[float]] = defaultdict(list)
    started: dict[str, float] = {}
    formed: dict[str, float] = {}
    killed: dict[str, float] = {}
    last: dict[str, tuple[float, int]] = {}
    at = 0.0
    for record in read_journal(folder.journal):
        at, worker = float(record.get("at", at)), str(record.get("worker"))
        match record.get("command") if record["event"] == "command" else record["event"]:
            case "start_worker":
                started[worker] = at
            case "worker_ready" if worker in started:
                samples["start_s"].append(at - started.pop(worker))
            case "form":
                formed[worker] = at
            case "kill":
                killed.setdefault(worker, at)
            case "worker_exited" if worker in killed:
                samples["exit_s"].append(at - killed.pop(worker))
            case "progressed" if record["phase"] == "step":
                step = int(record["step"])
                if worker in formed:
                    samples["take_up_s"].append(at - formed.pop(worker))
                elif worker in last and step > last[worker][1]:
                    samples["step_s"].append((at - last[worker][0]) / (step - last[worker][1]))
                last[worker] = (at, step)
            case "checkpoint_saved":
                samples["checkpoint_stall_s"].append(float(record["stall"]))
                samples["checkpoint_write_s"].append(float(record["duration"]))
    if not samples:
        raise RequestError(
            f"{folder.journal} tells of no worker: give a run with cluster.workers of 2 or more to --like"
        )
    return {name: statistics.median(values) for name, values in samples.items()}


def sweep_of(text: str) -> tuple[str, list[float]]:
    """Reads `NAME=VALUE,VALUE,...`.

    Raises:
        RequestError: it is not of this form, or there is no such number in a workload.

    >>> sweep_of("snapshot_every=10,100")
    ('snapshot_every', [10, 100])
    """
    name, _, values = text.partition("=")
    numbers = [field.name for field in fields(Workload) if field.name != "reform"]
    if name not in numbers:
        raise RequestError(f"--sweep {text} names no number of a forecast: use one of {', '.join(numbers)}")
    try:
        found = [int(value) if value.strip().lstrip("-").isdigit() else float(value) for value in values.split(",")]
    except ValueError:
        raise RequestError(f"--sweep {text} must list numbers: write it as in snapshot_every=10,100") from None
    return name, found


def swept(workload: Workload, name: str, values: Sequence[float]) -> list[Workload]:
    """The workload with each of the values."""
    return [replace(workload, **{name: value}) for value in values]


def figures(found: Forecast, load: dict[str, float]) -> dict[str, Any]:
    """A forecast as plain numbers.

    Args:
        found: the forecast.
        load: of the supervisor while nothing but steps happens.
    """
    workload, ledger, seconds = found.workload, found.ledger, max(found.seconds, 1e-9)
    snapshots_per_s = ledger.steps / workload.snapshot_every / seconds
    checkpoints_per_s = ledger.steps / workload.checkpoint_every / seconds
    return {
        "goodput": found.goodput,
        "hours": seconds / _HOUR_S,
        "steps": found.steps,
        "failures": found.losses,
        "preemptions": found.preemptions,
        "restarts": ledger.restarts,
        "lost_steps": ledger.lost_steps,
        "lost_work": ledger.lost_steps * workload.step_s / seconds,
        "detection": ledger.detection / seconds,
        "gathering": ledger.gathering / seconds,
        "take_up": ledger.take_up / seconds,
        "stalls": ledger.steps * (workload.stalled_step_s - workload.step_s) / seconds,
        "checkpoint_bytes_per_s": checkpoints_per_s * workload.state_bytes,
        "snapshot_bytes_per_s_a_host": snapshots_per_s * workload.state_bytes,
        "snapshot_bytes_per_s": snapshots_per_s * workload.state_bytes * workload.hosts,
        "supervisor_events_per_s": load["events_per_s"] + found.events / seconds,
        "supervisor_cpu": load["cpu"] + found.supervisor_s / seconds,
        "supervisor_longest_event_s": found.longest_event_s,
        "ended": None if found.ended is None else found.ended.reason.splitlines()[-1],
    }


def limit_of(found: Forecast, numbers: dict[str, Any]) -> str:
    """One sentence: what keeps the goodput from being higher, and what would help."""
    if numbers["ended"] is not None:
        return f"the run ends after {numbers['hours']:.1f} h: {numbers['ended']}; raise --max-failures to go on"
    helps = {
        "gathering": "the wait for hosts and workers between two generations: add --spare-hosts, or allow fewer hosts "
        "with --min-hosts",
        "lost_work": "steps that are made again after a failure: take snapshots more often with --snapshot-every",
        "detection": "the time until a lost host is known: shorten --detect-s",
        "take_up": "the time from an assignment to the first step: shorten --take-up-s",
        "stalls": "the stalls of snapshots and checkpoints: take them less often",
    }
    shares = {name: numbers[name] for name in helps}
    # What no other share explains is that fewer hosts make slower steps.
    shares["size"] = max(0.0, 1 - numbers["goodput"] - sum(shares.values()))
    helps["size"] = "steps on fewer hosts than there could be: add --spare-hosts"
    name = max(shares, key=shares.__getitem__)
    if shares[name] < 1e-6:
        return "nothing limits the goodput: no host was lost"
    return f"goodput is limited most by {helps[name]} ({shares[name]:.2%} of the time)"


def describe(
    forecasts: Sequence[tuple[Forecast, dict[str, Any]]], sources: dict[str, str], swept_name: str | None
) -> str:
    """The table and the sentence, for a person.

    Args:
        forecasts: each with its figures; one column each.
        sources: where the constants come from.
        swept_name: what differs between the columns.
    """
    rows = [
        ("goodput", "goodput", "{:.2%}"),
        ("hours", "hours looked at", "{:.1f}"),
        ("steps", "steps completed", "{:,}"),
        ("failures", "hosts lost", "{:,}"),
        ("preemptions", "hosts preempted", "{:,}"),
        ("restarts", "restarts", "{:,}"),
        ("lost_steps", "steps made again", "{:,}"),
        ("lost_work", "  time for them", "{:.2%}"),
        ("detection", "time to detect", "{:.2%}"),
        ("gathering", "time to gather hosts and workers", "{:.2%}"),
        ("take_up", "time to take up again", "{:.2%}"),
        ("stalls", "time in stalls of saving", "{:.2%}"),
        ("checkpoint_bytes_per_s", "checkpoint bytes/s to storage", "{:,.0f}"),
        ("snapshot_bytes_per_s_a_host", "snapshot bytes/s in a host's memory", "{:,.0f}"),
        ("snapshot_bytes_per_s", "  on all hosts", "{:,.0f}"),
        ("supervisor_events_per_s", "supervisor events/s", "{:,.0f}"),
        ("supervisor_cpu", "supervisor share of one core", "{:.2%}"),
        ("supervisor_longest_event_s", "  longest event, s", "{:.3f}"),
    ]
    columns = [[label for _, label, _ in rows]]
    columns += [[form.format(numbers[key]) for key, _, form in rows] for _, numbers in forecasts]
    if swept_name:
        columns[0].insert(0, swept_name)
        for column, (found, _) in zip(columns[1:], forecasts, strict=True):
            column.insert(0, f"{getattr(found.workload, swept_name):g}")
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(cell.ljust(width) if not index else cell.rjust(width) for index, (cell, width) in enumerate(row))
        for row in ((list(zip(line, widths, strict=True))) for line in zip(*columns, strict=True))
    ]
    workload = forecasts[0][0].workload
    lines += ["", "constants:"]
    lines += [f"  {name} = {getattr(workload, name):g}  {source}" for name, source in sources.items()]
    lines.append("")
    for found, numbers in forecasts:
        head = f"{swept_name}={getattr(found.workload, swept_name):g}: " if swept_name else ""
        lines.append(head + limit_of(found, numbers))
    return "\n".join(line.rstrip() for line in lines)


def as_json(forecasts: Sequence[tuple[Forecast, dict[str, Any]]], sources: dict[str, str]) -> str:
    """One JSON document."""
    items = [
        {
            "workload": {field.name: getattr(found.workload, field.name) for field in fields(Workload)},
            **numbers,
            "limit": limit_of(found, numbers),
        }
        for found, numbers in forecasts
    ]
    return json.dumps({"sources": sources, "forecasts": items}, indent=2)
