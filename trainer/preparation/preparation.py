"""The folder of a preparation: what is to do, what is done, and what it becomes at the end.

Everything that is not finished lies in the hidden folder `.preparing`: the request, a file for each survey and part,
named by a digest of all that it is made of, and the facts about each shard. So what is there need not be done again,
and what is there is never wrong: a raw file that has changed has parts of other names.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from trainer.atomic_file import sync_folder, write_whole
from trainer.data.checks import DataError
from trainer.preparation.formats import RawFormat, format_of
from trainer.preparation.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from trainer.preparation.parts import Part
from trainer.preparation.request import Chunk, Contents, DamagedRecord, Request, ShardFacts
from trainer.preparation.tasks import Task, too_many_damaged

UNFINISHED = ".preparing"
PREFIX = "records"


class Preparation:
    """The preparation of a folder.

    Args:
        request: What is asked for.
        folder: Where the shards go.
        most_damaged: Records that may be left out.

    Attributes:
        finished: What the folder holds already, if it is that; then there is nothing to do.
        chunks: Of the raw files.

    Raises:
        DataError: The raw files are not there, or the folder holds something else.
    """

    def __init__(self, request: Request, folder: Path, most_damaged: int = 0) -> None:
        self.request, self.folder, self._most_damaged = request, folder, most_damaged
        self._format: RawFormat = format_of(request.format)
        self.chunks: list[Chunk] = self._format.chunks(request)
        self._unfinished = folder / UNFINISHED
        self._contents: Contents | None = None
        self._parts: tuple[Path, ...] = ()
        self.finished = self._opened()

    @property
    def surveyed(self) -> bool:
        """Whether there is a survey for each chunk."""
        return self._format.NEEDS_SURVEY

    def surveys(self) -> list[Task]:
        """The first tasks; none where the format needs no survey."""
        if not self._format.NEEDS_SURVEY:
            return []
        return [
            Task(kind="survey", name=f"survey of {chunk.name}", file=file, request=self.request, chunk=chunk)
            for chunk, file in zip(self.chunks, self._survey_files(), strict=True)
            if not file.exists()
        ]

    def parts(self) -> list[Task]:
        """The tasks after the surveys.

        Raises:
            DataError: The raw files do not go together.
        """
        self._settle_contents()
        assert self._contents is not None
        return [
            Task(
                kind="part",
                name=chunk.name,
                file=file,
                request=self.request,
                most_damaged=self._most_damaged,
                chunk=chunk,
                contents=self._contents,
            )
            for chunk, file in zip(self.chunks, self._parts, strict=True)
            if not file.exists()
        ]

    def shards(self) -> list[Task]:
        """The last tasks.

        Raises:
            DataError: More is damaged than may be left out, or nothing is left.
        """
        self._check_damaged()
        if not any(Part(path).records for path in self._parts):
            raise DataError(self.request.source, "", "there is no record in it", "correct RAW, or --format")
        return [
            Task(
                kind="shard",
                name=name,
                file=self._facts_file(name),
                request=self.request,
                parts=self._parts,
                shard=number,
                shard_file=self.folder / name,
                plan=self._plan(),
            )
            for number, name in enumerate(self._shard_names())
            if self._shard_facts(name) is None
        ]

    def damaged_so_far(self) -> list[DamagedRecord]:
        """What was left out of the parts that are there, sorted."""
        parts = [Part(path) for path in self._parts if path.exists()]
        return sorted((one for part in parts for one in part.damaged), key=lambda one: (one.file, one.record, one.rule))

    def finish(self) -> Manifest:
        """Writes the manifest and removes what is not needed any more.

        Raises:
            OSError: The folder cannot be written to.
        """
        assert self._contents is not None
        facts = [self._shard_facts(name) for name in self._shard_names()]
        manifest = Manifest(
            request=self.request,
            contents=self._contents,
            shards=tuple(one for one in facts if one is not None),
            damaged=tuple(self.damaged_so_far()),
            raw_bytes=sum(Part(path).raw_bytes for path in self._parts),
            plan=self._plan(),
        )
        assert len(manifest.shards) == self.request.num_shards, "every shard is written"
        write_manifest(self.folder, manifest)
        shutil.rmtree(self._unfinished)
        for left in self.folder.glob(".*.part"):  # by a worker that was killed while it wrote an index
            left.unlink(missing_ok=True)
        return manifest

    def _opened(self) -> Manifest | None:
        manifest = read_manifest(self.folder)
        if manifest is not None:
            self._check_same(manifest.request, "a finished preparation")
            self._settle_parts(manifest.contents)
            if manifest.plan != self._plan():
                rule = f"the files of {self.request.source} have changed since it was prepared"
                raise DataError(self.folder, "", rule, "name another folder, or remove this one")
            self._check_shards(manifest)
            shutil.rmtree(self._unfinished, ignore_errors=True)  # of a job that was killed at its last line
            return manifest
        begun = self._unfinished / "request.json"
        if begun.exists():
            self._check_same(Request.model_validate_json(begun.read_bytes()), "an unfinished preparation")
            return None
        if any(not entry.name.startswith(".") for entry in self.folder.iterdir()):
            rule = "it is not empty and holds no preparation"
            raise DataError(self.folder, "", rule, "name a folder that is new or empty")
        self._unfinished.mkdir(exist_ok=True)
        write_whole(begun, self.request.model_dump_json())
        return None

    def _check_same(self, other: Request, what: str) -> None:
        ours, theirs = self.request.model_dump(), other.model_dump()
        for name, value in theirs.items():
            if ours[name] != value:
                rule = f"it holds {what} with {name}={value}, and this is one with {name}={ours[name]}"
                raise DataError(self.folder, "", rule, "ask for the same, name another folder, or remove this one")

    def _check_shards(self, manifest: Manifest) -> None:
        for shard in manifest.shards:
            path = self.folder / shard.name
            if not path.exists() or path.stat().st_size != shard.bytes:
                rule = f"it is not there with the {shard.bytes} bytes that {MANIFEST} says"
                raise DataError(path, "", rule, f"remove {self.folder} and prepare it again")

    def _survey_files(self) -> list[Path]:
        return [self._unfinished / f"{_digest(self._asked(), chunk)}.survey" for chunk in self.chunks]

    def _settle_contents(self) -> None:
        files = self._survey_files() if self._format.NEEDS_SURVEY else []
        surveys = [json.loads(file.read_bytes()) for file in files]
        self._settle_parts(self._format.contents(self.request, self.chunks, surveys))

    def _settle_parts(self, contents: Contents) -> None:
        self._contents = contents
        # Without what is told about the records and is not in them.
        asked = self._asked(), contents.model_dump_json(exclude={"statistics"})
        self._parts = tuple(self._unfinished / f"{_digest(*asked, chunk)}.part" for chunk in self.chunks)

    def _asked(self) -> str:
        return self.request.model_dump_json()

    def _plan(self) -> str:
        return _digest(*(path.name for path in self._parts))

    def _check_damaged(self) -> None:
        damaged = self.damaged_so_far()
        if len(damaged) > self._most_damaged:
            first = damaged[self._most_damaged]
            raise too_many_damaged(DataError(first.file, first.record, first.rule), self._most_damaged)

    def _shard_names(self) -> Sequence[str]:
        count = self.request.num_shards
        return [f"{PREFIX}-{number:05d}-of-{count:05d}.tfrecord" for number in range(count)]

    def _facts_file(self, name: str) -> Path:
        return self._unfinished / f"{name}.facts"

    def _shard_facts(self, name: str) -> ShardFacts | None:
        """Of a shard that is there and made of the parts that there are now."""
        try:
            stored = json.loads(self._facts_file(name).read_bytes())
            facts = ShardFacts(**stored["shard"])
            same = stored["plan"] == self._plan() and (self.folder / name).stat().st_size == facts.bytes
        except FileNotFoundError:
            return None
        return facts if same else None


def _digest(*of: object) -> str:
    """A name for all of these together."""
    text = "\n".join(one if isinstance(one, str) else one.model_dump_json() for one in of)  # type: ignore[attr-defined]
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def make_folder(folder: Path) -> None:
    """Makes the folder of a preparation.

    Raises:
        DataError: It cannot be made, or it is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        rule = f"the folder cannot be made ({error.strerror})"
        raise DataError(folder, "", rule, "name a folder that can be written to") from error
