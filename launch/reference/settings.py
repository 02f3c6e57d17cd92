"""Every setting of a config as Markdown, from the JSON schema that `phalanx schema` prints."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from launch.reference.table import table

_LIMITS = (("minimum", "≥ "), ("exclusiveMinimum", "> "), ("maximum", "≤ "), ("exclusiveMaximum", "< "))
_KINDS = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
_MOST_CHARACTERS = 60  # of a default that is written out


def settings_page(schema: Mapping[str, Any]) -> str:
    """The page of all settings.

    Args:
        schema: of a config, as `launch.config_schema.json_schema` makes it.
    """
    definitions = schema["$defs"]
    lines = ["# Settings", "", _INTRODUCTION, ""]
    plain = {key: field for key, field in schema["properties"].items() if not _sections(field)}
    if plain:
        lines += ["## Settings without a section", "", *_table("", plain), ""]
    for key, field in schema["properties"].items():
        if key not in plain:
            lines += [f"## {key}", "", f"{_sentence(field.get('description', ''))}", ""]
            lines += _section(key, field, definitions, 3)
    return "\n".join(lines).rstrip() + "\n"


_INTRODUCTION = """\
All settings of a config file, written from the schema that the program checks it with. `phalanx schema` prints the
same as a JSON schema, by which an editor completes and checks the file. A setting without a default is required.
How settings are given and replaced: [Configuration](../guides/configuration.md)."""


def _section(path: str, field: Mapping[str, Any], definitions: Mapping[str, Any], level: int) -> Iterator[str]:
    """A section's settings; of one that is chosen by name, those that all variants share first."""
    variants = [definitions[name] for name in _sections(field)]
    if len(variants) == 1:
        yield from _definition(path, variants[0], definitions, level)
        return
    shared = _shared(variants)
    if shared:
        yield from ["Whatever its name is:", "", *_table(path, shared), ""]
        yield from _inner(path, shared, definitions, level)
    for variant in variants:
        yield from [f"{'#' * level} {path}.name: {_name(variant)}", ""]
        rest = {key: one for key, one in variant["properties"].items() if key not in shared and key != "name"}
        yield from _definition(path, {**variant, "properties": rest}, definitions, level + 1)


def _definition(path: str, section: Mapping[str, Any], definitions: Mapping[str, Any], level: int) -> Iterator[str]:
    if section.get("description"):
        yield from [_sentence(section["description"]), ""]
    if section["properties"]:
        yield from [*_table(path, section["properties"], section.get("required", ())), ""]
    yield from _inner(path, section["properties"], definitions, level)


def _inner(path: str, fields: Mapping[str, Any], definitions: Mapping[str, Any], level: int) -> Iterator[str]:
    for key, field in fields.items():
        if len(_sections(field)) > 1 and key in ("data", "model", "task"):  # such as the sources of a mixture
            yield from [f"`{path}.{key}` has the settings of [{key}](#{key}).", ""]
        elif _sections(field):
            yield from [f"{'#' * level} {path}.{key}", ""]
            yield from _section(f"{path}.{key}", field, definitions, level + 1)


def _shared(variants: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What every variant but one of the user's own has, in the same words."""
    first, *others = (variant["properties"] for variant in variants)
    return {key: field for key, field in first.items() if key != "name" and all(o.get(key) == field for o in others)}


def _name(variant: Mapping[str, Any]) -> str:
    name = variant["properties"].get("name", {})
    of_tfds = name.get("pattern", "").startswith("^tfds:")
    return str(name.get("const", "tfds:DATASET" if of_tfds else "package.module:function"))


def _sections(field: Mapping[str, Any]) -> list[str]:
    """The definitions that a field refers to, itself, in a list, or by names of the user's."""
    places = [field, *field.get("anyOf", ()), *field.get("oneOf", ())]
    places += [field[key] for key in ("items", "additionalProperties") if isinstance(field.get(key), Mapping)]
    found = [place["$ref"] for place in places if "$ref" in place]
    return [reference.rpartition("/")[2] for reference in found]


def _table(path: str, fields: Mapping[str, Any], required: Any = ()) -> list[str]:
    rows = []
    for key, field in fields.items():
        name = f"{path}.{key}" if path else key
        default = "required" if key in required else _default(field)
        rows.append((f"`{name}`", _kind(field), default, _sentence(field.get("description", ""))))
    return table(("setting", "value", "default", "meaning"), rows)


def _default(field: Mapping[str, Any]) -> str:
    if "default" not in field:
        return ""
    text = json.dumps(field["default"], ensure_ascii=False)
    return f"`{text}`" if len(text) <= _MOST_CHARACTERS else "see below"


def _kind(field: Mapping[str, Any]) -> str:
    """What a value may be, in words: `a whole number > 0, or null`."""
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`".replace('"', "") for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    for key in ("anyOf", "oneOf"):
        if key in field:
            return ", or ".join(dict.fromkeys(_kind(one) for one in field[key]))
    if "$ref" in field:
        return "a section"
    if field.get("examples"):
        return "such as " + ", ".join(f"`{example}`" for example in field["examples"])
    if field.get("type") == "array":
        items = field.get("items")
        return "a list of sections" if items and _sections({"items": items}) else "a list"
    if field.get("type") == "object":
        return "names with sections" if _sections(field) else "names with values"
    if field.get("type") == "null":
        return "`null`"
    limits = " and ".join(f"{sign}{field[key]:,}" for key, sign in _LIMITS if key in field)
    return f"{_KINDS.get(field.get('type', ''), 'any value')} {limits}".strip()


def _sentence(text: str) -> str:
    """A description as a sentence: those of fields begin small and end without a full stop."""
    text = " ".join(text.split())
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", ":")) else ".")
