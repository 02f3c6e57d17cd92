"""The JSON schema of a config, written for editors."""

from typing import Any

from pydantic import BaseModel

from launch.config_keys import kind_of
from launch.run_config import RunConfig
from trainer.config.choice import chosen


def json_schema() -> dict[str, Any]:
    """The schema; sections chosen by `name` say so in a way that editors complete.

    pydantic makes no key required that has a default, `name` included. Then a section without a name would match
    several variants and an editor could say nothing about it, so here `name` is required where it chooses, but for the
    variant that a section without a name is.
    """
    schema = RunConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Phalanx run"
    defaults = _defaults(RunConfig)
    for reference in _variants(schema):
        key = reference.rpartition("/")[2]
        variant = schema["$defs"][key]
        if "name" not in variant["properties"] or key in defaults:  # chosen by its form, or by no name
            continue
        variant["required"] = sorted({"name", *variant.get("required", ())})
    return schema


def _defaults(section: type[BaseModel]) -> set[str]:
    """The classes that sections without a name are, below this one."""
    found: set[str] = set()
    for field in section.model_fields.values():
        kind = kind_of(field)
        if len(kind.sections) > 1 and (default := chosen(kind.sections, kind.default_name)):
            found.add(default.__name__)
        for inner in kind.sections:
            found |= _defaults(inner)
    return found


def _variants(node: Any) -> list[str]:
    """References to all sections that are chosen by name."""
    if isinstance(node, list):
        return [reference for item in node for reference in _variants(item)]
    if not isinstance(node, dict):
        return []
    found = [item["$ref"] for item in node.get("oneOf", ()) if "$ref" in item]
    return found + [reference for value in node.values() for reference in _variants(value)]
