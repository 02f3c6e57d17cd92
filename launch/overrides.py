"""Settings given on the command line: `train.steps=200 model.hidden=[256,128]`."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from launch.yaml_text import Location, parse_value

_QUOTES, _BRACKETS = "\"'", "[]{}"
_NULL = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Overridden:
    """A config with the command line's settings put in.

    Attributes:
        values: the sections; the ones that were passed in are left as they were.
        locations: the settings that came from the command line.
        problems: one sentence for each override that could not be read.
    """

    values: dict[str, Any]
    locations: frozenset[Location]
    problems: tuple[str, ...]


def apply_overrides(
    values: dict[str, Any],
    overrides: Sequence[str],
    takes_text: Callable[[Location], bool] = lambda _: False,
    written_out: Callable[[Location, Any], dict[str, Any] | None] = lambda *_: None,
) -> Overridden:
    """Put `section.key=value` settings into a config; the last one for a key counts.

    Args:
        values: the sections of the config file.
        overrides: as typed; what stands right of the first `=` is read as a YAML value.
        takes_text: whether a setting is text, so that `run.name=7` is the name "7" and not a number.
        written_out: the section that a plain value at a location is short for, None where it is only itself.
    """
    values = copy.deepcopy(values)
    locations: set[Location] = set()
    problems: list[str] = []
    for override in overrides:
        key, separator, text = override.partition("=")
        location = tuple(key.split("."))
        if not separator or not all(location):
            problems.append(f"{override!r} is not a setting: write section.key=value, as in train.steps=200")
            continue
        try:
            value = _read(text, takes_text(location))
        except ValueError as error:
            problems.append(f"{key}={text} cannot be read ({error}): put the value in quotes, as in '{key}=\"...\"'")
            continue
        if (outer := _put(values, location, value, written_out)) is not None:
            problems.append(f"{key} cannot be set, because {outer} is a value and not a section: set {outer} itself")
            continue
        locations.add(location)
    return Overridden(values, frozenset(locations), tuple(problems))


def _read(text: str, is_text: bool) -> Any:
    """The value that was typed; a pattern such as `*.txt`, which the shell hands over without its quotes, as it is.

    Raises:
        ValueError: the text is not a YAML value.
    """
    try:
        value = parse_value(text)
    except ValueError:
        if text[0] in _QUOTES or (not is_text and set(text) & {*_BRACKETS, *_QUOTES}):
            raise
        return text
    if is_text and not isinstance(value, str) and (value is not None or text not in _NULL):
        return text
    return value


def _put(
    values: dict[str, Any],
    location: Sequence[str],
    value: Any,
    written_out: Callable[[Location, Any], dict[str, Any] | None],
) -> str | None:
    """Set a value, making sections on the way; returns the name of what is in the way, if anything is."""
    section = values
    for depth, part in enumerate(location[:-1], start=1):
        if section.get(part) is None:
            section[part] = {}
        elif not isinstance(section[part], dict) and (inner := written_out(tuple(location[:depth]), section[part])):
            section[part] = inner
        section = section[part]
        if not isinstance(section, dict):
            return ".".join(location[:depth])
    section[location[-1]] = value
    return None
