"""Sentences for what is wrong with a config: the value, the rule, the change to make."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from launch.config_keys import all_settings, field_at, kind_of, section_at
from launch.yaml_text import Location, dotted, parse_value
from trainer.config.choice import TAG


class ConfigError(ValueError):
    """The config cannot be used.

    Attributes:
        problems: one sentence for each thing that is wrong.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


TYPES = {
    "int": ("a whole number", "write it without quotes, as in 200"),
    "float": ("a number", "write it without quotes, as in 0.001"),
    "bool": ("true or false", "write one of these, without quotes"),
    "string": ("text", "put it in quotes"),
    "tuple": ("a list", "write it in brackets, as in [1, 2]"),
    "list": ("a list", "write it in brackets, as in [1, 2]"),
    "dict": ("a section of keys and values", "indent its keys below it"),
    "model": ("a section of keys and values", "indent its keys below it"),
}
"""Beginning of pydantic's error type: what the value must be, and how to write it."""

BOUNDS = {
    "greater_than": ("above", "gt", "choose a larger value"),
    "greater_than_equal": ("at least", "ge", "choose a larger value"),
    "less_than": ("below", "lt", "choose a smaller value"),
    "less_than_equal": ("at most", "le", "choose a smaller value"),
}


def location_of(error: ErrorDetails) -> Location:
    """Where an error lies, without the variants that were chosen on the way."""
    return tuple(part for part in error["loc"] if not (isinstance(part, str) and part.startswith(TAG)))


def setting_of(location: Location) -> Location:
    """The location without positions in a list: what can be set and left out as a whole."""
    end = next((index for index, part in enumerate(location) if isinstance(part, int)), len(location))
    return location[:end]


def sentences(
    error: ErrorDetails, root: type[BaseModel], values: dict[str, Any], origins: Mapping[Location, str]
) -> list[str]:
    """What one of pydantic's errors means; several sentences where a rule found several problems.

    Args:
        error: one item of `ValidationError.errors()`.
        root: the config's schema.
        values: what was validated.
        origins: where a setting was written, such as "configs/mnist.yaml, line 7".
    """
    location = location_of(error)
    texts = _texts(error, location, root, values)
    spot = (*location, "name") if error["type"] == "union_tag_invalid" else location
    origin = origins.get(spot) or origins.get(setting_of(spot))
    at_setting = error["type"] not in ("value_error", "missing") or _is_plain(root, values, location)
    return [f"{text} ({origin})" if origin and at_setting else text for text in texts]


def _is_plain(root: type[BaseModel], values: dict[str, Any], location: Location) -> bool:
    field = field_at(root, values, setting_of(location))
    return field is not None and not kind_of(field).sections


def _texts(error: ErrorDetails, location: Location, root: type[BaseModel], values: dict[str, Any]) -> list[str]:
    name, value, context = dotted(location), error["input"], error.get("ctx", {})
    given = f"{name}={show(value)}"
    kind, _, detail = error["type"].partition("_")
    if error["type"] == "extra_forbidden":
        return [_unknown_key(location, value, root, values)]
    if error["type"] == "missing":
        return [_missing(location, root, values)]
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return [_unknown_name(location, value, root, values)]
    if error["type"] == "value_error":
        return _from_rule(str(context["error"]), name, given, _is_plain(root, values, location))
    if error["type"] == "literal_error":
        return [_not_listed(given, value, context["expected"])]
    if error["type"] in BOUNDS:
        words, key, change = BOUNDS[error["type"]]
        field = field_at(root, values, setting_of(location))
        if value == 0 and location == setting_of(location) and field is not None and kind_of(field).optional:
            change += ", or null for none"
        return [f"{given} must be {words} {show(context[key])}: {change}"]
    if error["type"] in ("too_short", "too_long", "string_too_short", "string_too_long"):
        least, most = context.get("min_length"), context.get("max_length")
        unit = "characters" if kind == "string" else "values"
        rule = f"at least {least}" if least is not None else f"at most {most}"
        return [f"{given} must have {rule} {unit}: {'add' if least is not None else 'remove'} some"]
    if error["type"] == "string_pattern_mismatch":
        return [f"{given} has a form that is not allowed{_described(root, values, location)}: write it differently"]
    if error["type"] == "finite_number":
        return [f"{given} must be a finite number: choose one"]
    if kind in TYPES and (detail in ("type", "parsing", "from_float", "attributes_type") or kind == "int"):
        rule, change = TYPES[kind]
        if kind in ("int", "float") and str(value).lower().lstrip("+-.") in ("nan", "inf", "infinity"):
            return [f"{given} must be a finite number: choose one"]
        if kind == "int" and isinstance(value, float) and value.is_integer():
            return [f"{name}={value} must be a whole number: write {int(value)}, with no point and no exponent"]
        return [f"{given} must be {rule}: {change}"]
    return [f"{given} is not a value that this setting takes{_described(root, values, location)}: change it"]


def _from_rule(message: str, name: str, given: str, plain: bool) -> list[str]:
    """Sentences of a rule of ours: about the one setting, or whole sentences about several settings."""
    if plain:
        return [f"{given} {message}" if message.startswith("must ") else f"{name}: {message}"]
    return message.split("\n")


def _unknown_key(location: Location, value: Any, root: type[BaseModel], values: dict[str, Any]) -> str:
    name, key, outer = dotted(location), str(location[-1]), location[:-1]
    section = section_at(root, values, outer) or root
    keys = sorted(section.model_fields)
    if "." in key:
        outermost, *path = key.split(".")
        nested = show(value)
        for part in reversed(path):
            nested = f"{{{part}: {nested}}}"
        return f"{name} is a setting in a section, which a file nests: write {outermost}: {nested}"
    begin = f"{name} is not a setting"
    if guess := difflib.get_close_matches(key, keys, n=1, cutoff=0.6):
        return f"{begin}: did you mean {dotted((*outer, guess[0]))}?"
    # The right key in the wrong section, or with no section at all.
    elsewhere = sorted({setting for setting in all_settings(root) if setting.rpartition(".")[2] == key})
    if name in elsewhere:
        return f"{begin} of {_title(outer, values)}: remove it, or use one of {', '.join(keys)}"
    if elsewhere:
        return f"{begin}: did you mean {elsewhere[0]}?"
    where = f" of {_title(outer, values)}" if outer else ""
    return f"{begin}{where}: remove it, or use one of {', '.join(keys)}"


def _title(location: Location, values: Any) -> str:
    for part in location:
        values = values.get(part) if isinstance(values, dict) else None
    name = values.get("name") if isinstance(values, dict) else None
    return f"{dotted(location)}.name={name}" if isinstance(name, str) else dotted(location)


def _missing(location: Location, root: type[BaseModel], values: dict[str, Any]) -> str:
    if isinstance(location[-1], int):
        return f"{dotted(location[:-1])} must have more values than {location[-1]}: add the missing ones"
    field = field_at(root, values, location)
    named = field is not None and len(kind_of(field).sections) > 1
    if named and field is not None:
        return f"{dotted(location)}.name is missing: choose one of {', '.join(kind_of(field).names())}"
    return f"{dotted(location)} is missing{_described(root, values, location)}: add it"


def _unknown_name(location: Location, value: Any, root: type[BaseModel], values: dict[str, Any]) -> str:
    field = field_at(root, values, location)
    names = kind_of(field).names() if field is not None else []
    if not isinstance(value, dict):
        return (
            f"{dotted(location)}={show(value)} must be a section: write {dotted(location)}.name={_guess(value, names)}"
        )
    if value.get("name") is None:
        return f"{dotted(location)}.name is missing: choose one of {', '.join(names)}"
    return _not_listed(f"{dotted(location)}.name={show(value['name'])}", value["name"], names)


def _guess(value: Any, names: Sequence[str]) -> str:
    return next(iter(difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)), "...")


def _not_listed(given: str, value: Any, expected: str | Sequence[str]) -> str:
    if isinstance(expected, str):
        expected = re.findall(r"'([^']*)'", expected) or re.split(r", | or ", expected)
    if len(expected) == 1:
        return f"{given} must be {expected[0]}: set {given.partition('=')[0]}={expected[0]}"
    # Part of a name says more than a similar one: float16 is mixed_float16, and not float32.
    guess = [choice for choice in expected if isinstance(value, str) and value in choice.split("_")]
    if not guess and isinstance(value, str):
        guess = difflib.get_close_matches(value, expected, n=1, cutoff=0.5)
    change = f"did you mean {guess[0]}?" if guess else "choose one of these"
    return f"{given} must be one of {', '.join(expected)}: {change}"


def _described(root: type[BaseModel], values: dict[str, Any], location: Location) -> str:
    field = field_at(root, values, location) or field_at(root, values, setting_of(location))
    return f" ({field.description})" if field is not None and field.description else ""


def show(value: Any) -> str:
    """A value as it would be typed, shortened to fit a line."""
    if isinstance(value, float):
        return f"{value:g}"
    bare = isinstance(value, str) and re.fullmatch(r"[\w./:+-]+", value) and parse_value(value) == value
    text = value if bare else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
