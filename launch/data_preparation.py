"""`phalanx data prepare`: has the tasks of a preparation done by processes or on Ray, and tells what became of them."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from cluster.local_crew import LocalCrew
from cluster.ray_crew import RayCrew
from cluster.run_lock import RunBusy, RunLock
from cluster.work_list import WorkList
from launch.exit_code import RequestError
from trainer.config.byte_size import format_byte_size
from trainer.data.checks import DataError
from trainer.preparation.formats import guess_format
from trainer.preparation.manifest import Manifest
from trainer.preparation.preparation import Preparation, make_folder
from trainer.preparation.request import SHARD_BYTES, FormatName, Request
from trainer.preparation.tasks import Done, Task, carry_out, too_many_damaged

On = Literal["local", "ray"]
_LINE_S = 1.0
_LOG_LINE_S = 10.0
_MOST_NAMED = 20


@dataclass(frozen=True)
class Prepared:
    """A prepared folder, and what this call did for it.

    Attributes:
        folder: Where it is.
        manifest: What it says.
        was_there: Everything was finished before.
        done, reused: Tasks done now, and found done.
        deaths: Workers that died meanwhile.
        seconds: Wall time.
    """

    folder: Path
    manifest: Manifest
    was_there: bool = False
    done: int = 0
    reused: int = 0
    deaths: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "folder": str(self.folder),
            "records": self.manifest.num_records,
            "damaged": [record.model_dump() for record in self.manifest.damaged],
            "shards": [shard.model_dump() for shard in self.manifest.shards],
            "tasks_done": self.done,
            "tasks_reused": self.reused,
            "workers_died": self.deaths,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class _Progress:
    """A line that is rewritten on a terminal, and one in a while elsewhere."""

    out: TextIO
    began: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)
    _width: int = 0

    def tell(self, line: str, now: float | None = None) -> None:
        now = time.monotonic() if now is None else now
        terminal = self.out.isatty()
        if now - self._last < (_LINE_S if terminal else _LOG_LINE_S):
            return
        self._last = now
        if terminal:
            self.out.write(f"\r{line:<{self._width}}")
            self._width = len(line)
        else:
            self.out.write(line + "\n")
        self.out.flush()

    def say(self, sentence: str) -> None:
        self.clear()
        self.out.write(f"phalanx: {sentence}\n")
        self.out.flush()

    def clear(self) -> None:
        if self._width:
            self.out.write("\r" + " " * self._width + "\r")
            self._width = 0


def make_request(source: str, format: FormatName | None, shards: int | None, **options: Any) -> Request:
    """A request with what was not given filled in from the input alone: format and number of shards.

    Raises:
        DataError: The input is not there, or looks like nothing that is known.
    """
    from trainer.preparation.formats import format_of

    request = Request(source=source, format=format or guess_format(source), num_shards=shards or 1, **options)
    if shards is None:
        sizes = {file.path: file.size for chunk in format_of(request.format).chunks(request) for file in chunk.files}
        request = request.model_copy(update={"num_shards": max(1, -(-sum(sizes.values()) // SHARD_BYTES))})
    return request


def prepare_data(
    request: Request,
    folder: Path,
    *,
    most_damaged: int = 0,
    workers: int | None = None,
    on: On = "local",
    address: str | None = None,
    out: TextIO | None = None,
) -> Prepared:
    """Prepares a folder; what an earlier call has done already is not done again.

    Args:
        request: What to make of what.
        folder: Where.
        most_damaged: Records that may be left out.
        workers: At once; without it, one a CPU of this machine or of the Ray cluster.
        on: Where workers run.
        address: Of the Ray cluster, as in `cluster.ray.address`.
        out: Gets the progress; without it, the standard error.

    Raises:
        DataError: The input is not what it should be.
        RequestError: Another process prepares the folder.
        WorkError: Worker after worker died at the same task.
        RayClusterError: The Ray cluster cannot be used.
    """
    folder = folder.absolute()
    make_folder(folder)
    with _locked(folder):
        preparation = Preparation(request, folder, most_damaged)
        if preparation.finished is not None:
            return Prepared(folder, preparation.finished, was_there=True)
        progress = _Progress(out or sys.stderr)
        crew = LocalCrew(carry_out) if on == "local" else RayCrew(carry_out, folder, address)
        most = workers or (crew.cpus if isinstance(crew, RayCrew) else _cpus())
        with closing(crew):
            work = WorkList(crew, most, on_death=progress.say)
            done = sum(
                _stage(work, stage, make(), preparation, most_damaged, progress)
                for stage, make in (
                    ("surveys", preparation.surveys),
                    ("parts", preparation.parts),
                    ("shards", preparation.shards),
                )
            )
        progress.clear()
        manifest = preparation.finish()
        chunks = len(preparation.chunks) * (2 if preparation.surveyed else 1)
        return Prepared(
            folder=folder,
            manifest=manifest,
            done=done,
            reused=chunks + request.num_shards - done,
            deaths=work.deaths,
            seconds=time.monotonic() - progress.began,
        )


def describe_prepared(prepared: Prepared) -> str:
    """A table for people."""
    manifest = prepared.manifest
    counts = [shard.records for shard in manifest.shards]
    rows = [
        ("read", f"{_size(manifest.raw_bytes)} of {manifest.request.format} in {manifest.request.source}"),
        ("records", f"{manifest.num_records:,}"),
        ("left out", f"{len(manifest.damaged):,} damaged"),
        ("shards", f"{len(counts):,}, the smallest of {min(counts):,} and the largest of {max(counts):,} records"),
        ("written", _size(sum(shard.bytes for shard in manifest.shards))),
        ("holds", ", ".join(f"{name} ({one.kind})" for name, one in manifest.contents.features.items())),
    ]
    if manifest.contents.class_names:
        names = manifest.contents.class_names
        rows.append(("classes", f"{len(names):,}: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"))
    if prepared.was_there:
        rows.append(("work", "none: it was finished before"))
    else:
        died = f", {prepared.deaths:,} workers died and were replaced" if prepared.deaths else ""
        rows.append(
            ("work", f"{prepared.done:,} tasks in {prepared.seconds:.1f}s, {prepared.reused:,} done before{died}")
        )
    lines = [f"{name:<9} {text}" for name, text in rows]
    for one in manifest.damaged[:_MOST_NAMED]:
        lines.append(f"  left out: {', '.join(filter(None, (one.file, one.record)))}: {one.rule}")
    if len(manifest.damaged) > _MOST_NAMED:
        lines.append(f"  ... and {len(manifest.damaged) - _MOST_NAMED:,} more, see manifest.json")
    lines += ["", f"train on it: data.name=prepared data.path={prepared.folder}"]
    return "\n".join(lines)


def _stage(
    work: WorkList, stage: str, tasks: Sequence[Task], preparation: Preparation, most_damaged: int, progress: _Progress
) -> int:
    """Has the tasks of a stage done, and counts them."""
    done, records, size, began = 0, 0, 0, time.monotonic()
    left_out = len(preparation.damaged_so_far()) if stage == "parts" else 0

    def note(name: str, result: Done) -> None:
        nonlocal done, records, size, left_out
        done, records, size = done + 1, records + result.records, size + result.bytes
        left_out += len(result.damaged)
        if left_out > most_damaged:
            last = result.damaged[-1]
            raise too_many_damaged(DataError(last.file, last.record, last.rule), most_damaged)
        rate = size / max(1e-3, time.monotonic() - began)
        progress.tell(f"{stage} {done}/{len(tasks)}  {records:,} records  {rate / 1e6:.1f} MB/s  {left_out} left out")

    work.carry_out({task.name: task for task in tasks}, note)
    return done


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        with RunLock(folder, sys.argv):
            yield
    except RunBusy as error:
        holder = error.holder and error.holder.process
        who = f"process {holder.pid} on {holder.host}" if holder else "another process"
        raise RequestError(f"{folder} is being prepared by {who}: wait for it, or name another folder") from None


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        scale = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}[unit]
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return format_byte_size(size)
