import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from trainer.config.interval import Interval


class Holder(BaseModel):
    every: Interval


@pytest.mark.parametrize(
    ("text", "value", "unit"), [("500st", 500, "st"), ("30s", 30, "s"), ("0.5ep", 0.5, "ep"), (" 2 ep ", 2, "ep")]
)
def test_parses_value_and_unit(text, value, unit):
    assert Interval.parse(text) == Interval(value, unit)


@given(st.floats(1e-9, 1e15), st.sampled_from(["s", "ep"]))
def test_text_reads_back_to_the_same_interval(value, unit):
    assert Interval.parse(str(Interval(value, unit))) == Interval(value, unit)


@pytest.mark.parametrize("text", ["500", "st", "-5st", "0s", "1.5st", "5min", "1e3st", "nanep", ""])
def test_refuses_what_is_not_an_interval(text):
    with pytest.raises(ValueError, match=r"^must "):
        Interval.parse(text)


def test_is_text_in_a_config_and_in_its_dump():
    assert Holder.model_validate_json('{"every": "1ep"}', strict=True).model_dump(mode="json") == {"every": "1ep"}


def test_a_bare_number_is_refused_in_a_config():
    with pytest.raises(ValidationError, match="must be text with a unit"):
        Holder.model_validate({"every": 500})


def test_json_schema_accepts_what_is_accepted():
    pattern = Holder.model_json_schema()["properties"]["every"]["pattern"]
    assert re.match(pattern, "500st")
    assert not re.match(pattern, "500")
