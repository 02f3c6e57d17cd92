"""Which settings exist where: what the messages about a config and the reading of overrides need to know."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from launch.yaml_text import Location
from trainer.config.choice import ChosenByName, accepted_names, chosen

IMPORTABLE = "package.module:function"


@dataclass(frozen=True)
class Kind:
    """What a setting takes.

    Attributes:
        sections: the sections of which its value is one; empty for a plain value.
        default_name: the `name` that a section without one has, where the section is chosen by name.
        optional: whether null is a value of it.
        plain: the type of a plain value, None for a section.
    """

    sections: tuple[type[BaseModel], ...]
    default_name: str | None
    optional: bool
    plain: Any

    def section_for(self, values: object) -> type[BaseModel] | None:
        """The section that these values are for; None where their `name` chooses none."""
        if len(self.sections) < 2:
            return self.sections[0] if self.sections else None
        name = values.get("name", self.default_name) if isinstance(values, dict) else None
        return chosen(self.sections, name)

    def names(self) -> list[str]:
        """The names to choose from, open sets of names by their form."""
        listed: list[str] = []
        for section in self.sections:
            names, pattern = accepted_names(section)
            listed.extend(names or ["tfds:NAME" if "tfds:" in (pattern or "") else IMPORTABLE])
        return listed


def kind_of(field: FieldInfo) -> Kind:
    """What a field of a section takes."""
    default = next((item.default for item in field.metadata if isinstance(item, ChosenByName)), None)
    members, optional = [], False
    for member, marker in _members(field.annotation):
        default = marker or default
        if member is type(None):
            optional = True
        else:
            members.append(member)
    sections = tuple(member for member in members if isinstance(member, type) and issubclass(member, BaseModel))
    return Kind(sections, default, optional, members[0] if members and not sections else None)


def _members(annotation: Any) -> Iterator[tuple[Any, str | None]]:
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        marker = next((mark.default for mark in marks if isinstance(mark, ChosenByName)), None)
        for member, inner_marker in _members(inner):
            yield member, inner_marker or marker
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation, None


def section_at(root: type[BaseModel], values: object, location: Location) -> type[BaseModel] | None:
    """The section at a location, chosen by the names that the values give on the way; None where there is none."""
    section: type[BaseModel] | None = root
    items: FieldInfo | None = None  # of the list that the last part names
    for part in location:
        if isinstance(part, int):
            field = items
            values = values[part] if isinstance(values, (list, tuple)) and part < len(values) else None
        else:
            field = section.model_fields.get(part) if section is not None else None
            values = values.get(part) if isinstance(values, dict) else None
        if field is None:
            return None
        kind = kind_of(field)
        section, items = kind.section_for(values), _items_of(kind)
    return section


def _items_of(kind: Kind) -> FieldInfo | None:
    """What each item of a list is; None of what is no list."""
    if get_origin(kind.plain) not in (tuple, list):
        return None
    return FieldInfo.from_annotation(get_args(kind.plain)[0])


def field_at(root: type[BaseModel], values: dict[str, Any], location: Location) -> FieldInfo | None:
    """The field at a location; None where there is none."""
    if not location:
        return None
    section = root if len(location) == 1 else section_at(root, values, location[:-1])
    return section.model_fields.get(str(location[-1])) if section else None


def takes_text(root: type[BaseModel], values: dict[str, Any], location: Location) -> bool:
    """Whether a setting is text, so that a number given to it on the command line is meant as text."""
    field = field_at(root, values, location)
    if field is None:
        return False
    plain = kind_of(field).plain
    return plain is str or (get_origin(plain) is Literal and all(isinstance(item, str) for item in get_args(plain)))


def written_out(root: type[BaseModel], values: dict[str, Any], location: Location, value: Any) -> dict[str, Any] | None:
    """The section that a plain value is short for; None where the value stands for itself alone."""
    field = field_at(root, values, location)
    sections = kind_of(field).sections if field is not None else ()
    long_forms = (getattr(section, "written_out", None) for section in sections)
    return next((long_form(value) for long_form in long_forms if long_form is not None), None)


def all_settings(root: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting of every variant, dotted, some more than once."""
    for name, field in root.model_fields.items():
        yield f"{prefix}{name}"
        for section in kind_of(field).sections:
            yield from all_settings(section, f"{prefix}{name}.")
