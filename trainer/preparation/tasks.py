"""One task: look through a chunk, turn a chunk into a part, or parts into a shard.

Each leaves one file, under its name only when it is whole. So a task that was killed, or is done twice, does no harm.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainer.atomic_file import sync_folder, write_whole
from trainer.data.cache_folder import written_whole
from trainer.data.checks import DataError
from trainer.data.record_index import open_index
from trainer.preparation.formats import format_of
from trainer.preparation.order import FileKeys
from trainer.preparation.parts import Part, PartWriter
from trainer.preparation.request import Chunk, Contents, DamagedRecord, Request, ShardFacts

Kind = Literal["survey", "part", "shard"]


class Task(BaseModel):
    """What a worker is told.

    Attributes:
        name: For messages.
        file: What it leaves: a survey, a part, or the facts about a shard.
        most_damaged: Records that may be left out of one part.
        chunk, contents: Of a survey or a part.
        parts, shard, shard_file, plan: Of a shard; `plan` stands for all that it is made of.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    name: str
    file: Path
    request: Request
    most_damaged: int = 0
    chunk: Chunk | None = None
    contents: Contents | None = None
    parts: tuple[Path, ...] = ()
    shard: int = 0
    shard_file: Path | None = None
    plan: str = ""


class Done(BaseModel):
    """What a worker answers: records and bytes that it read or wrote."""

    model_config = ConfigDict(frozen=True)

    records: int = 0
    bytes: int = 0
    damaged: tuple[DamagedRecord, ...] = ()


def carry_out(task: Task) -> Done:
    """Does a task.

    Raises:
        DataError: The raw data are not what they should be, or more is damaged than may be left out.
        OSError: The folder cannot be written to, or the disk is full.
    """
    return {"survey": _survey, "part": _part, "shard": _shard}[task.kind](task)


def _survey(task: Task) -> Done:
    assert task.chunk is not None
    found = format_of(task.request.format).survey(task.request, task.chunk)
    write_whole(task.file, json.dumps(found))
    return Done(bytes=sum(file.size for file in task.chunk.files))


def _part(task: Task) -> Done:
    assert task.chunk is not None and task.contents is not None
    request, chunk = task.request, task.chunk
    raw_bytes = sum(file.size for file in chunk.files)
    if request.format == "lines":
        raw_bytes = chunk.stop - chunk.start
    keys = {file.name: FileKeys(request.seed, file.name) for file in chunk.files}
    damaged: list[DamagedRecord] = []
    with written_whole(task.file) as temporary, temporary.open("wb") as file:
        part = PartWriter(file, request.num_shards)
        for record in format_of(request.format).read(request, chunk, task.contents):
            if isinstance(record, DataError):
                damaged.append(DamagedRecord(file=record.file, record=record.record, rule=record.rule))
                if len(damaged) > task.most_damaged:
                    raise too_many_damaged(record, task.most_damaged)
            else:
                part.add(keys[record.file].key(record.number), record.payload)
        part.finish(damaged, raw_bytes)
    return Done(records=part.records, bytes=raw_bytes, damaged=tuple(damaged))


def _shard(task: Task) -> Done:
    assert task.shard_file is not None
    # Each part gives sorted runs, which is what Python's sort is quick with.
    entries = sorted(entry for path in task.parts for entry in Part(path).entries(task.shard))
    digest, size = hashlib.sha256(), 0
    # Written beside its facts, so that whatever a kill leaves goes away with them.
    whole = task.file.with_suffix("")
    with written_whole(whole) as temporary, temporary.open("wb") as file:
        for _, framed in entries:
            digest.update(framed)
            size += file.write(framed)
    os.replace(whole, task.shard_file)
    sync_folder(task.shard_file.parent)
    open_index(task.shard_file)
    facts = ShardFacts(name=task.shard_file.name, records=len(entries), bytes=size, sha256=digest.hexdigest())
    write_whole(task.file, json.dumps({"plan": task.plan, "shard": facts.model_dump()}))
    return Done(records=len(entries), bytes=size)


def too_many_damaged(error: DataError, most: int) -> DataError:
    """The error of the record with which more is damaged than may be left out."""
    rule = error.rule if not most else f"{error.rule}, and {most} records before it are damaged too"
    change = f"correct it, or leave such records out: --skip-damaged allows {most}"
    return DataError(error.file, error.record, rule, change)
