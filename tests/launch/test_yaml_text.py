import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.yaml_text import dotted, parse_value, read_document, write_yaml

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(st.characters(codec="ascii"))
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=6,
)


def test_numbers_and_truth_values_follow_yaml_1_2():
    values = read_document("a: 1e-3\nb: on\nc: 010\nd: 1:30\ne: 10_000\nf: 2013-01-01\ng: true\nh: .inf\n", "x").values
    assert values == {
        "a": 0.001, "b": "on", "c": 10, "d": "1:30", "e": 10000, "f": "2013-01-01", "g": True, "h": math.inf,
    }  # fmt: skip


def test_each_key_knows_its_line():
    document = read_document("model:\n  name: mlp\n\ndata: {name: mnist}\n", "x")
    assert document.lines[("model", "name")] == 2
    assert document.lines[("data",)] == 4


def test_duplicate_keys_are_named_with_both_lines_and_all_at_once():
    document = read_document("a: 1\nb:\n  x: 1\n  x: 2\na: 3\n", "my.yaml")
    assert sorted(document.problems) == [
        "a is given twice in my.yaml, on lines 1 and 5: remove one of them",
        "b.x is given twice in my.yaml, on lines 3 and 4: remove one of them",
    ]


def test_merge_keys_work_and_are_no_duplicates():
    document = read_document("base: &base\n  a: 1\n  b: 2\nother:\n  <<: *base\n  b: 3\n", "x")
    assert document.values["other"] == {"a": 1, "b": 3}
    assert document.problems == []


@pytest.mark.parametrize(
    "text", ["a: [1\nb: 2\n", "a: 'x\n", "a: b: c\n", "a: &x\n  b: *x\n", "a: *nowhere\n", "\tb: 1"]
)
def test_broken_yaml_is_one_sentence_with_the_line(text):
    document = read_document(text, "my.yaml")
    assert len(document.problems) == 1
    assert document.problems[0].startswith("my.yaml, line ")
    assert "\n" not in document.problems[0]


def test_a_list_is_not_a_config():
    assert read_document("- 1\n", "my.yaml").problems == [
        "my.yaml must hold sections such as model:, data: and train:, not a single value"
    ]


def test_an_empty_file_has_no_values_and_no_problem():
    document = read_document("# nothing yet\n", "x")
    assert (document.values, document.problems) == ({}, [])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abcxyz_", min_size=1), NESTED, max_size=3))
def test_written_values_read_back(values):
    document = read_document(write_yaml(values), "x")
    assert document.problems == []
    assert document.values == values


@pytest.mark.parametrize(
    ("text", "value"), [("200", 200), ("[256,128]", [256, 128]), ("a.b:c", "a.b:c"), ("null", None), ("", None)]
)
def test_parse_value(text, value):
    assert parse_value(text) == value


def test_parse_value_refuses_what_is_not_yaml():
    with pytest.raises(ValueError, match="flow sequence"):
        parse_value("[1")


def test_dotted():
    assert dotted(("model", "hidden", 1)) == "model.hidden[1]"
