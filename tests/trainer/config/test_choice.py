from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from trainer.config.choice import ChosenByName, accepted_names, chosen
from trainer.config.section import Section


class Circle(Section):
    name: Literal["circle", "disc"] = "circle"
    radius: int = 1


class Square(Section):
    name: Literal["square"] = "square"
    side: int = 1


class Named(Section):
    name: Annotated[str, Field(pattern="^lib:")]


class Anything(Section):
    name: Annotated[str, Field(pattern="^[a-z]+:[a-z]+$")]
    options: dict = Field(default_factory=dict)


VARIANTS = (Circle, Square, Named, Anything)
Shape = Annotated[Circle | Square | Named | Anything, ChosenByName(default="square")]


class Drawing(Section):
    shape: Shape = Field(default_factory=Circle)
    strict: Annotated[Circle | Square, ChosenByName()] = Field(default_factory=Circle)


@pytest.mark.parametrize(
    ("name", "variant"),
    [("circle", Circle), ("disc", Circle), ("square", Square), ("lib:x", Named), ("mod:fn", Anything)],
)
def test_name_chooses_the_variant(name, variant):
    assert type(Drawing.model_validate({"shape": {"name": name}}).shape) is variant
    assert chosen(VARIANTS, name) is variant


def test_only_the_chosen_variant_complains():
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate({"shape": {"name": "circle", "radius": "big", "side": 2}})
    assert {(error["type"], error["loc"][-1]) for error in caught.value.errors()} == {
        ("int_parsing", "radius"),
        ("extra_forbidden", "side"),
    }


def test_a_section_without_a_name_is_the_default_variant():
    assert Drawing.model_validate({"shape": {"side": 3}}).shape == Square(side=3)


def test_without_a_default_the_name_is_required():
    with pytest.raises(ValidationError, match="discriminator"):
        Drawing.model_validate({"strict": {"radius": 3}})


def test_an_instance_is_taken_as_it_is():
    assert Drawing(shape=Square(side=3)).shape == Square(side=3)


def test_unknown_name_chooses_nothing():
    assert chosen(VARIANTS, "hexagon") is None
    assert chosen(VARIANTS, 3) is None


def test_accepted_names_are_literals_or_a_pattern():
    assert accepted_names(Circle) == (("circle", "disc"), None)
    assert accepted_names(Named) == ((), "^lib:")
