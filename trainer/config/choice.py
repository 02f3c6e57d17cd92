"""Sections whose keys depend on their `name`: the model, the task, the data, the optimizer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

TAG = "name="
"""Beginning of the part that pydantic puts into an error's location for the chosen variant."""


@dataclass(frozen=True)
class ChosenByName:
    """Marks a union of sections of which `name` chooses one: `Annotated[A | B | Custom, ChosenByName()]`.

    A variant declares either `name: Literal["mlp"]` or, for an open set of names, a pattern; the first to fit counts.

    Attributes:
        default: the name of a section that gives none; without it, such a section is an error.
    """

    default: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        variants = get_args(source)
        schemas = {}
        for variant in variants:
            names, pattern = accepted_names(variant)
            for label in names or (pattern,):
                schemas[f"{TAG}{label}"] = handler.generate_schema(variant)

        def tag(value: object) -> str | None:
            name = value.get("name", self.default) if isinstance(value, dict) else getattr(value, "name", None)
            if name is None:
                return None
            for variant in variants:
                if matches(variant, name):
                    names, pattern = accepted_names(variant)
                    return f"{TAG}{name if names else pattern}"
            return f"{TAG}{name}"

        return core_schema.tagged_union_schema(schemas, discriminator=tag)


def accepted_names(variant: type[BaseModel]) -> tuple[tuple[str, ...], str | None]:
    """The names that choose this variant, or else the pattern of its names."""
    field = variant.model_fields["name"]
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation), None
    patterns = [item.pattern for item in field.metadata if getattr(item, "pattern", None)]
    assert len(patterns) == 1, f"{variant.__name__}.name needs a Literal or one pattern"
    return (), patterns[0]


def matches(variant: type[BaseModel], name: object) -> bool:
    """Whether this name chooses this variant."""
    names, pattern = accepted_names(variant)
    if not isinstance(name, str):
        return False
    return name in names if names else re.search(pattern or "", name) is not None


def chosen(variants: Sequence[type[BaseModel]], name: object) -> type[BaseModel] | None:
    """The variant that this name chooses."""
    return next((variant for variant in variants if matches(variant, name)), None)
