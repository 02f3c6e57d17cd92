"""One attempt of one contender: started, watched until it trains, struck by a fault, watched until it trains on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil
import yaml

from benchmarks.fault_models import NUM_WORKERS, STEPS_BEFORE, run_settings
from trainer.goodput.reading import read_account
from trainer.observe.journal import read_journal
from trainer.observe.json_lines import read_lines
from trainer.observe.trace import read_trace

Figures = dict[str, Any]
PATIENCE_S = 240.0
# Ray's mode for machines without clusters: it does not take this machine's loopback address for another one. A driver
# that is given an address does not look for the token that the head would want.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}
_LOG_TAIL = 3000  # characters
_LOOK_S = 0.05
_PACE_STEPS = 100  # that an average is taken of


class AttemptFailed(RuntimeError):
    """A contender did not do what was waited for. The message says what it printed last."""


@contextlib.contextmanager
def started(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """A contender; all that it has started ends with the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
    try:
        yield process
    finally:
        family = [psutil.Process(process.pid)] if psutil.pid_exists(process.pid) else []
        family += family[0].children(recursive=True) if family else []
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        psutil.wait_procs(family, 10)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen, log: Path, patience_s: float = PATIENCE_S) -> Any:
    """What the condition gives as soon as that is true.

    Raises:
        AttemptFailed: It takes too long, or the process ended.
    """
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-_LOG_TAIL:]
            raise AttemptFailed(f"{log.stem} ended with {process.poll()}, or nothing came of it:\n{tail}")
        time.sleep(_LOOK_S)
    return found


def elastic(model: str, folder: Path, kind: str, fault: signal.Signals | None) -> Figures:
    """Phalanx with members that keep their processes, and one standby."""
    return phalanx(model, folder, kind, fault, "strategy.name=elastic", "cluster.standbys=1")


def phalanx(model: str, folder: Path, kind: str, fault: signal.Signals | None, *overrides: str) -> Figures:
    """Phalanx, as its command line runs it.

    Args:
        model: Of `fault_models`.
        folder: For the run.
        kind: `cluster.kind`.
        fault: What strikes the chief; None: it only trains for a while.
        overrides: Of the config.
    """
    folder.mkdir(parents=True)
    is_elastic = "strategy.name=elastic" in overrides
    config, log, run = folder / "run.yaml", folder / "phalanx.log", folder / "run"
    config.write_text(yaml.safe_dump(run_settings(model, str(folder), kind)))
    command = [sys.executable, "-c", "from launch.cli import main; main()", "train", str(config), *overrides]
    began = time.time()

    def has_trained() -> bool:
        journal = read_journal(run / "journal.jsonl")
        steps = [event["step"] for event in journal if event["event"] == "progressed"]
        rehearsed = sum(event["event"] == "progressed" and event["phase"] == "standby" for event in journal)
        # An elastic worker is ready only when it has traced everything.
        ready = sum(event["event"] == "worker_ready" for event in journal)
        has_standbys = ready > NUM_WORKERS if is_elastic else rehearsed >= NUM_WORKERS
        return max(steps, default=0) >= STEPS_BEFORE[model] and (fault is None or has_standbys)

    with started(command, log) as process:
        wait_for(has_trained, process, log)
        struck = time.time()
        before = {rank: _calls(run, rank, until=struck) for rank in range(NUM_WORKERS)}
        figures: Figures = {
            "launch_s": max(calls[0]["end"] for calls in before.values()) - began,
            "step_ms": _pace([(call["step"], call["start"]) for call in before[0]]),
            "stall_ms": _median(
                [1e3 * span["duration"] for span in read_trace(run / "trace" / "0.jsonl") if _is_stall(span)]
            ),
        }
        if fault is None:
            return figures
        pid = next(event["pid"] for event in read_journal(run / "journal.jsonl") if event["event"] == "started")
        struck = time.time()
        os.kill(pid, fault)
        failure = wait_for(lambda: next((row for row in read_account(run).failures if row.is_over), None), process, log)
        best = (failure.resumed_step or 0) + (failure.steps_lost or 0)

        def new_step() -> float | None:
            ends = [
                min((call["end"] for call in _calls(run, rank, since=struck) if call["step"] >= best), default=None)
                for rank in range(NUM_WORKERS)
            ]
            return None if None in ends else max(ends)  # type: ignore[type-var]

        recovered = wait_for(new_step, process, log)
        first = max(_calls(run, rank, since=struck)[0]["end"] for rank in range(NUM_WORKERS))
    return figures | {
        "recovery_s": recovered - struck,
        "first_step_s": first - struck,
        "steps_lost": failure.steps_lost,
        "phases": {"detection": failure.at - struck, **{k: v for k, v in failure.phases.items() if k != "detection"}},
    }


def joining(model: str, folder: Path, kind: str) -> Figures:
    """What an elastic worker notices of another's death when nobody stands by, and of the newcomer that joins it.

    Returns:
        `shrunk_s`, from SIGKILL of the chief to the next step of the other worker; `step_ms`, its usual time for a step
        beside the newcomer; `join_ms`, what the longest step took longer from the order to form the group until the
        newcomer has taken its third; `joining_ms`, what all of these took longer than as many steps do on average
        before and afterwards.
    """
    folder.mkdir(parents=True)
    config, log, run = folder / "run.yaml", folder / "phalanx.log", folder / "run"
    config.write_text(yaml.safe_dump(run_settings(model, str(folder), kind)))
    command = [sys.executable, "-c", "from launch.cli import main; main()", "train", str(config)]

    def formed() -> list[dict[str, Any]]:
        """Each generation of two so far, as its chief was told of it."""
        commands = [event for event in read_journal(run / "journal.jsonl") if event.get("command") == "form"]
        chiefs = [event for event in commands if event["assignment"]["rank"] == 0]
        return [event for event in chiefs if len(event["assignment"]["members"]) == NUM_WORKERS]

    def ends(rank: int, since: float) -> list[float]:
        return [call["end"] for call in _calls(run, rank, since)]

    with started([*command, "strategy.name=elastic", "cluster.standbys=0"], log) as process:
        wait_for(lambda: len(ends(1, 0.0)) > STEPS_BEFORE[model], process, log)
        pid = next(event["pid"] for event in read_journal(run / "journal.jsonl") if event["event"] == "started")
        struck = time.time()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(formed()) > 1, process, log)
        joined_at = formed()[-1]["time"]
        wait_for(lambda: len(ends(1, joined_at)) > STEPS_BEFORE[model], process, log)
        newcomers = _calls(run, 1, joined_at)[:3]
    survivors = ends(0, struck)  # who is the chief from then on
    steps = [(end, end - last) for last, end in pairwise(survivors)]
    before = [duration for end, duration in steps if end <= joined_at][-_PACE_STEPS:]
    alone = [duration for end, duration in steps if joined_at < end <= newcomers[0]["start"]]
    together = [duration for end, duration in steps if newcomers[0]["start"] < end]
    num_joining = sum(newcomers[0]["start"] < end <= newcomers[-1]["end"] for end, _ in steps) + 1
    joining_steps, after = together[:num_joining], together[num_joining:][:_PACE_STEPS]
    usual = median(after)
    expected = len(alone) * mean(before) + num_joining * mean(after)
    return {
        "shrunk_s": survivors[0] - struck,
        "step_ms": 1e3 * usual,
        "join_ms": 1e3 * (max(alone + joining_steps) - usual),
        "joining_ms": 1e3 * (sum(alone + joining_steps) - expected),
    }


def horovod_elastic(model: str, folder: Path) -> Figures:
    """Horovod's elastic mode: SIGKILL of one of two workers, each on a host of its own as far as Horovod can tell.

    Horovod bars a host on which a worker has failed, so the survivor goes on alone.

    Returns:
        `shrunk_s`, from SIGKILL to the survivor's next step that nobody had done before; `steps_lost`; `step_ms`.
    """
    folder.mkdir(parents=True)
    hosts, notes, log = folder / "hosts.sh", folder / "notes", folder / "horovod.log"
    hosts.write_text("#!/bin/sh\necho localhost:1\necho 127.0.0.1:1\n")
    hosts.chmod(0o755)
    launcher = [str(Path(sys.executable).with_name("horovodrun")), "--gloo", "-np", "2", "--min-np", "1"]
    script = [sys.executable, "-m", "benchmarks.horovod_elastic_peer", model, str(notes)]

    def noted(event: str, host: str, since: float = 0.0) -> list[dict[str, Any]]:
        lines = [line for path in notes.glob(f"worker-{host}-*.jsonl") for line in read_lines(path)]
        return sorted((n for n in lines if n["event"] == event and n["time"] > since), key=lambda n: n["time"])

    with started([*launcher, "--host-discovery-script", str(hosts), *script], log, PYTHONPATH=os.getcwd()) as process:
        steps = STEPS_BEFORE[model]
        wait_for(lambda: all(len(noted("step", host)) > steps for host in ("localhost", "127.0.0.1")), process, log)
        pace = _pace([(note["step"], note["time"]) for note in noted("step", "localhost")])
        struck = time.time()
        os.kill(noted("started", "127.0.0.1")[0]["pid"], signal.SIGKILL)
        restored = wait_for(lambda: noted("restored", "localhost", struck), process, log)[0]
        best = max(note["step"] for note in noted("step", "localhost") if note["time"] < restored["time"])
        done = wait_for(
            lambda: [n for n in noted("step", "localhost", restored["time"]) if n["step"] > best], process, log
        )
    return {"shrunk_s": done[0]["time"] - struck, "steps_lost": best - restored["step"], "step_ms": pace}


def _is_stall(span: dict[str, Any]) -> bool:
    return span["name"] == "snapshot_stall"


def _calls(run: Path, rank: int, since: float = 0.0, until: float = float("inf")) -> list[dict[str, Any]]:
    """The calls of the inner loop that began within a time, a step each, in order, with their `end`."""
    spans = [span for span in read_trace(run / "trace" / f"{rank}.jsonl") if span["name"] in ("compile", "step")]
    calls = [{**span, "end": span["start"] + span["duration"]} for span in spans if since < span["start"] < until]
    return sorted(calls, key=lambda call: call["start"])


def ray_train(model: str, folder: Path, fault: signal.Signals | None, address: str | None = None) -> Figures:
    """Ray Train's TensorflowTrainer on the same model, batch and number of workers.

    Args:
        model: Of `fault_models`.
        folder: For its files.
        fault: What strikes rank 0; None: it only trains for a while.
        address: Of a Ray that is up; None: the script starts one.
    """
    folder.mkdir(parents=True)
    log = folder / "ray_train.log"
    command = [sys.executable, "-m", "benchmarks.ray_train_peer", model, str(folder)]
    command += [address] if address else []
    environment = {"PYTHONPATH": os.getcwd(), "TF_CPP_MIN_LOG_LEVEL": "2", **(LOOPBACK if address else {})}
    began = time.time()
    with started(command, log, **environment) as process:
        figures = _strike_peer(model, folder, process, log, began, fault)
        (folder / "stop").touch()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
    return figures


def mirrored_loop(model: str, folder: Path) -> Figures:
    """The loop written by hand, without anything that would bring it back."""
    folder.mkdir(parents=True)
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(NUM_WORKERS)]
    began = time.time()
    with contextlib.ExitStack() as stack:
        processes = []
        for rank in range(NUM_WORKERS):
            cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
            script = [sys.executable, "-m", "benchmarks.mirrored_loop", model, str(rank)]
            command = [*script, str(folder / "notes"), str(folder / "stop")]
            log = folder / f"loop{rank}.log"
            environment = {"TF_CONFIG": json.dumps(cluster), "TF_CPP_MIN_LOG_LEVEL": "2"}
            processes.append(stack.enter_context(started(command, log, **environment)))
        return _strike_peer(model, folder, processes[0], folder / "loop0.log", began, None)


def _strike_peer(
    model: str, folder: Path, process: subprocess.Popen, log: Path, began: float, fault: signal.Signals | None
) -> Figures:
    def notes(event: str, since: float = 0.0) -> list[dict[str, Any]]:
        lines = [line for path in (folder / "notes").glob("worker*.jsonl") for line in read_lines(path)]
        return sorted((n for n in lines if n["event"] == event and n["time"] > since), key=lambda n: n["time"])

    def last(event: str, since: float, at_least: int = 0) -> float | None:
        """When the last rank did it for the first time."""
        firsts: dict[str, float] = {}
        for line in notes(event, since):
            if line.get("step", 0) >= at_least:
                firsts.setdefault(line["who"], line["time"])
        return max(firsts.values()) if len(firsts) == NUM_WORKERS else None

    def has_trained() -> bool:
        return last("step", 0.0, STEPS_BEFORE[model]) is not None

    wait_for(has_trained, process, log)
    first_rank = [(note["step"], note["time"]) for note in notes("step") if note["who"] == "worker0"]
    figures: Figures = {
        "launch_s": (last("step", 0.0) or began) - began,
        "step_ms": _pace(first_rank),
        "stall_ms": _median([1e3 * note["seconds"] for note in notes("saved") if note["who"] == "worker0"]),
    }
    if fault is None:
        return figures
    pid = next(note["pid"] for note in notes("started") if note["who"] == "worker0")
    struck = time.time()
    os.kill(pid, fault)
    # A step that was under way may still have ended.
    wait_for(lambda: last("restored", struck), process, log)
    restored_at = last("restored", struck) or struck
    best = max(note["step"] for note in notes("step") if note["time"] < restored_at)
    recovered = wait_for(lambda: last("step", restored_at, best + 1), process, log)
    phases, before = {}, struck
    errors = notes("broken", struck)
    if errors:
        phases["detection"] = errors[0]["time"] - struck
        before = errors[0]["time"]
    for name, event in [
        ("new processes", "started"),
        ("import", "imported"),
        ("strategy", "strategy"),
        ("build", "built"),
        ("restore", "restored"),
    ]:
        at = last(event, struck)
        if at is not None:
            phases[name], before = at - before, at
    first = last("step", restored_at) or recovered
    phases["first step"] = first - before
    return figures | {
        "recovery_s": recovered - struck,
        "first_step_s": first - struck,
        "steps_lost": best - notes("restored", struck)[0]["step"],
        "phases": phases,
    }


def _pace(steps: list[tuple[int, float]]) -> float | None:
    """Milliseconds a step, saving included; the first fifth, in which everything is slower, is left out."""
    usual = steps[len(steps) // 5 :]
    if len(usual) < 2:
        return None
    return 1e3 * (usual[-1][1] - usual[0][1]) / (usual[-1][0] - usual[0][0])


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def free_port() -> int:
    """A port of this machine that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
