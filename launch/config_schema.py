"""The JSON schema of a config, written for editors."""

from typing import Any

from launch.run_config import RunConfig


def json_schema() -> dict[str, Any]:
    """The schema; sections chosen by `name` say so in a way that editors complete.

    pydantic makes no key required that has a default, `name` included. Then a section without a name would match
    several variants and an editor could say nothing about it, so here `name` is required where it chooses.
    """
    schema = RunConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Phalanx run"
    for reference in _variants(schema):
        variant = schema["$defs"][reference.rpartition("/")[2]]
        if "name" not in variant["properties"]:  # chosen by its form
            continue
        variant["required"] = sorted({"name", *variant.get("required", ())})
    return schema


def _variants(node: Any) -> list[str]:
    """References to all sections that are chosen by name."""
    if isinstance(node, list):
        return [reference for item in node for reference in _variants(item)]
    if not isinstance(node, dict):
        return []
    found = [item["$ref"] for item in node.get("oneOf", ()) if "$ref" in item]
    return found + [reference for value in node.values() for reference in _variants(value)]
