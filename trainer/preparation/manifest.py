"""What a prepared folder says about itself: `manifest.json`, and the section `data` of a config that trains on it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from trainer.atomic_file import write_whole
from trainer.data.checks import DataError
from trainer.preparation.request import Contents, DamagedRecord, Request, ShardFacts

MANIFEST, SECTION = "manifest.json", "data.yaml"


class Manifest(BaseModel):
    """A finished preparation.

    Attributes:
        version: Of this format.
        request: What was asked for.
        contents: What each record holds.
        shards: In their order.
        damaged: What was left out, sorted.
        raw_bytes: Of the input.
        plan: Stands for the files that were read, and the request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    request: Request
    contents: Contents
    shards: tuple[ShardFacts, ...]
    damaged: tuple[DamagedRecord, ...] = ()
    raw_bytes: int
    plan: str

    @property
    def num_records(self) -> int:
        """Of all shards."""
        return sum(shard.records for shard in self.shards)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None when it has none.

    Raises:
        DataError: It is damaged, or of another version.
    """
    file = folder / MANIFEST
    try:
        stored = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(file, "", f"it cannot be read ({error.strerror})", "make it readable") from error
    return parse_manifest(stored, file)


def parse_manifest(stored: bytes, file: object) -> Manifest:
    """Reads the bytes of `file`.

    Raises:
        DataError: It is damaged, or of another version.
    """
    try:
        return Manifest.model_validate_json(stored)
    except ValidationError as error:
        rule = f"it cannot be read ({str(error).splitlines()[0]})"
        raise DataError(file, "", rule, "prepare the data again into another folder") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes both files, `manifest.json` last: with it the folder is finished.

    Raises:
        OSError: The folder cannot be written to.
    """
    head = "# The section of a config that trains on this folder. Settings of its own: docs/reference/settings.md.\n"
    write_whole(folder / SECTION, head + yaml.safe_dump({"data": _section(folder, manifest)}, sort_keys=False))
    write_whole(folder / MANIFEST, json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")


def _section(folder: Path, manifest: Manifest) -> Mapping[str, object]:
    section: dict[str, object] = {"name": "prepared", "path": str(folder).replace("$", "$$")}
    if manifest.contents.target is not None:
        section["target"] = manifest.contents.target
    return section
