from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.inspection.people import HEADER, ROWS, rows_of_people
from trainer.data.source import Feature, Schema, SkippedRecords
from trainer.inspection.inspection import inspect_source
from trainer.inspection.validation import MOST_LISTED, validate_source


@pytest.fixture
def rules(open_csv):
    return inspect_source(open_csv(rows_of_people()), "csv").rules


def found_in(open_csv, rules, *rows, **options):
    return validate_source(open_csv([*rows_of_people(), *rows], **options), rules, "r.json")


def test_the_same_data_are_clean(open_csv, rules):
    found = found_in(open_csv, rules)
    assert found.ok and found.findings == () and (found.read, found.total) == (ROWS, ROWS)


@pytest.mark.parametrize(
    ("row", "check", "feature", "value", "says"),
    [
        ("red,inf,155,cat", "record", "age", "an infinite value", "holds an infinite value"),
        ("red,,155,cat", "record", "age", "missing", "is missing"),
        ("violet,30,155,cat", "names", "colour", "violet", "must be one of the categories"),
        (",30,155,cat", "names", "colour", "(missing or unknown)", "must be a known category"),
        ("red,30,-1,cat", "range", "height", "-1", "must lie in 150..158.429"),
        ("red,71,155,cat", "range", "age", "71", "must lie in 20..69"),
        ("red,30,155,cow", "names", "kind", "cow", "label 'kind' is cow, which must be one of the classes cat, dog"),
        (rows_of_people()[7], "duplicate", "", "", "row 8 (position 7) in every feature"),
    ],
)
def test_each_broken_rule_is_named_with_its_record(open_csv, rules, row, check, feature, value, says):
    found = found_in(open_csv, rules, row, "green,20,150.5,dog")
    assert found.counts == {(check, feature): 1}
    (finding,) = found.findings
    assert (finding.check, finding.feature, finding.value) == (check, feature, value)
    assert finding.record.endswith(f"people.csv, row {ROWS + 1}")
    assert finding.position == (None if check == "record" else ROWS)
    assert says in finding.rule
    line = finding.line()
    assert finding.record in line and finding.rule in line and finding.change in line and "\n" not in line
    if check in ("names", "range"):
        assert f"rules.features.{feature}." in finding.change and "r.json" in finding.change


def test_rules_that_were_edited_are_kept(open_csv, rules):
    wider = rules.model_copy(
        update={
            "duplicates": 0.1,
            "features": rules.features
            | {
                "colour": rules.features["colour"].model_copy(update={"names": None, "may_miss": True}),
                "age": rules.features["age"].model_copy(update={"range": None}),
                "kind": rules.features["kind"].model_copy(update={"names": ["cat", "dog", "cow"]}),
            },
        }
    )
    rows = ["violet,999,155,cow", ",30,156,dog", rows_of_people()[0]]
    assert len(found_in(open_csv, rules, *rows).counts) == 4
    assert found_in(open_csv, wider, *rows).ok


def test_more_duplicates_than_the_share_are_one_finding(open_csv, rules):
    some = rules.model_copy(update={"duplicates": 0.01})
    found = found_in(open_csv, some, *rows_of_people()[:4])
    assert found.counts == {("duplicate", ""): 1}
    assert "4 of 64 samples (0.0625) equal an earlier one" in found.findings[0].rule


def test_another_schema_is_named_feature_by_feature(open_csv, rules):
    rows = [f"{row},{i}" for i, row in enumerate(rows_of_people())]
    rows[0] = rows[0].replace("20", "young")
    found = validate_source(open_csv(rows, header=f"{HEADER},weight"), rules, "r.json")
    assert found.counts == {("schema", "age"): 1, ("schema", "weight"): 1}
    assert "feature 'age' is int32 of shape [], which must be float32" in found.findings[0].rule
    assert "'weight' is not among the rules" in found.findings[1].rule
    rows = [row.rpartition(",")[0] for row in rows_of_people()]
    swapped = validate_source(open_csv(rows, header="colour,age,kind"), rules, "r.json")
    assert ("schema", "height") in swapped.counts


def test_findings_are_bounded_and_all_counted(open_csv, rules):
    found = found_in(open_csv, rules, *(f"red,{100 + i},151.1,cat" for i in range(70)))
    assert found.counts == {("range", "age"): 70} and len(found.findings) == MOST_LISTED
    assert found.unlisted() == {("range", "age"): 70 - MOST_LISTED}
    assert [one.position for one in found.findings] == list(range(ROWS, ROWS + MOST_LISTED))


def test_labels_and_numbers_of_arrays(source_of):
    x, label = np.linspace(0, 1, 40).reshape(20, 2), np.arange(20) % 3
    rules = inspect_source(source_of({"x": x, "label": label}), "arrays").rules
    label = label.copy()
    x = x.copy()
    label[4], x[6, 1], x[8, 0] = 7, np.nan, 3.5
    found = validate_source(source_of({"x": x, "label": label}), rules, "r.json")
    assert found.counts == {("record", "x"): 1, ("range", "x"): 1, ("names", "label"): 1}
    told = {(one.check, one.value, one.record) for one in found.findings}
    assert told == {
        ("record", "NaN", "made.npz, row 6"),
        ("range", "3.5", "made.npz, row 8"),
        ("names", "7", "made.npz, row 4"),
    }


def test_texts_are_held_against_names_that_somebody_wrote():
    def made(city):
        names = np.array([b"Bonn", "Köln".encode(), city.encode()], object)

        def read(index):
            return {"city": tf.gather(tf.constant(names), index), "label": tf.cast(index, tf.int32)}

        schema = Schema({"city": Feature((), "string"), "label": Feature((), "int32")}, "label", 3, 3)
        return SimpleNamespace(
            schema=schema,
            skipped=SkippedRecords(),
            in_memory=True,
            may_skip=False,
            failure=None,
            read=read,
            locate=lambda index: f"cities, row {index}",
        )

    found = inspect_source(made("Ulm"), "cities")
    assert found.features["city"].kind == "text" and dict(found.features["city"].frequent)["Köln"] == 1
    assert found.rules.features["city"].names is None
    city = found.rules.features["city"].model_copy(update={"names": ["Bonn", "Köln", "Ulm"]})
    rules = found.rules.model_copy(update={"features": found.rules.features | {"city": city}})
    assert validate_source(made("Ulm"), rules, "r.json").ok
    (finding,) = validate_source(made("Paris"), rules, "r.json").findings
    assert (finding.value, finding.record) == ("Paris", "cities, row 2")
