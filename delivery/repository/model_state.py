"""What a repository knows of a model beside its versions: where its aliases point, and what was done last.

One small JSON file, replaced as a whole: a reader sees the state before a change or after it, never a part. The record
of the last change lies in it, so that the audit log gets its line even when a kill comes between the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from delivery.repository.refusal import RepositoryRefused
from trainer.atomic_file import write_whole

_FORMAT = "phalanx model repository 1"
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_MOST_BEFORE = 100  # places that a rollback can go back to


@dataclass(frozen=True)
class Alias:
    """Where an alias points.

    Attributes:
        version: Now.
        before: Before that, the newest first.
    """

    version: int
    before: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelState:
    """A model's entry.

    Attributes:
        serial: Counts the changes.
        highest: The highest version that there has ever been; lower numbers are never given again.
        aliases: By name.
        last: The audit record of the last change; None before the first.
    """

    serial: int = 0
    highest: int = 0
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    last: Mapping[str, Any] | None = None

    def moved(self, alias: str, version: int) -> ModelState:
        """The state with an alias pointing to a version, remembering where it pointed."""
        now = self.aliases.get(alias)
        before = (now.version, *(v for v in now.before if v != now.version))[:_MOST_BEFORE] if now else ()
        return self._with(alias, Alias(version, before))

    def moved_back(self, alias: str, version: int) -> ModelState:
        """The state with an alias at an earlier place again; what came after it is forgotten."""
        before = self.aliases[alias].before
        return self._with(alias, Alias(version, before[before.index(version) + 1 :]))

    def _with(self, name: str, alias: Alias) -> ModelState:
        return replace(self, aliases={**self.aliases, name: alias})


def check_alias(alias: str) -> str:
    """The alias, if one may be called so.

    Raises:
        RepositoryRefused: It may not.
    """
    if not _ALIAS.fullmatch(alias):
        raise RepositoryRefused(
            f"{alias!r} cannot be an alias: use up to 63 lower-case letters, digits, dashes and underscores, a letter "
            "first"
        )
    return alias


def read_state(path: Path) -> ModelState:
    """The state in a file; the state before any change where there is none.

    Raises:
        RepositoryRefused: The file is damaged.
        OSError: It cannot be read.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ModelState()
    except ValueError:
        content = ""
    return parse_state(content, str(path))


def parse_state(content: str, place: str) -> ModelState:
    """The state in a text.

    Raises:
        RepositoryRefused: It is damaged; `place` says where it is from.
    """
    try:
        fields = json.loads(content)
        if fields["format"] != _FORMAT:
            raise ValueError("another format")
        aliases = {
            check_alias(name): Alias(int(it["version"]), tuple(map(int, it["before"])))
            for name, it in fields["aliases"].items()
        }
        return ModelState(int(fields["serial"]), int(fields["highest"]), aliases, fields["last"])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RepositoryRefused(
            f"{place} is damaged: put it back from a copy, or take its last line from the audit log beside it"
        ) from None


def write_state(path: Path, state: ModelState) -> None:
    """Replaces the file in one durable step.

    Raises:
        OSError: It cannot be written; the state before stays.
    """
    write_whole(path, state_text(state))


def state_text(state: ModelState) -> str:
    """As `parse_state` reads it."""
    fields = {
        "format": _FORMAT,
        "serial": state.serial,
        "highest": state.highest,
        "aliases": {
            name: {"version": alias.version, "before": list(alias.before)}
            for name, alias in sorted(state.aliases.items())
        },
        "last": state.last,
    }
    return json.dumps(fields, indent=1) + "\n"
