from launch.overrides import apply_overrides

FILE = {"train": {"epochs": 5}, "model": {"hidden": [128]}, "precision": "float32"}


def test_values_are_yaml_and_make_their_sections():
    found = apply_overrides(FILE, ["model.hidden=[256,128]", "optimizer.schedule.warmup=5ep", "train.xla=true"])
    assert found.values == {
        "train": {"epochs": 5, "xla": True},
        "model": {"hidden": [256, 128]},
        "precision": "float32",
        "optimizer": {"schedule": {"warmup": "5ep"}},
    }
    assert found.locations == {("model", "hidden"), ("optimizer", "schedule", "warmup"), ("train", "xla")}
    assert found.problems == ()


def test_the_file_is_left_as_it_was():
    apply_overrides(FILE, ["model.hidden=[1]", "train.epochs=9"])
    assert FILE["model"] == {"hidden": [128]}
    assert FILE["train"] == {"epochs": 5}


def test_the_last_one_counts_and_only_the_first_equals_sign_separates():
    assert apply_overrides({}, ["a.b=1", "a.b=x=y"]).values == {"a": {"b": "x=y"}}


def test_a_number_for_a_text_setting_is_text():
    found = apply_overrides({}, ["run.name=007", "train.steps=7"], lambda location: location == ("run", "name"))
    assert found.values == {"run": {"name": "007"}, "train": {"steps": 7}}


def test_what_is_no_yaml_is_text_where_text_is_wanted_or_nothing_else_can_be_meant():
    found = apply_overrides(
        {},
        ["data.files=*.txt", "data.path=[ab]*.csv", "data.target=#1", "data.other=&x*", "data.held_out_path=null"],
        lambda location: location[-1] in ("files", "path", "target", "held_out_path"),
    )
    assert found.values["data"] == {
        "files": "*.txt", "path": "[ab]*.csv", "target": "#1", "other": "&x*", "held_out_path": None,
    }  # fmt: skip
    unclosed = apply_overrides({}, ["run.name='x", "model.hidden=[1"], lambda location: location == ("run", "name"))
    assert len(unclosed.problems) == 2 and not unclosed.values


def test_all_unreadable_overrides_are_reported():
    found = apply_overrides(FILE, ["train.steps", "=3", "a..b=1", "a=[1", "precision.x=1"])
    assert len(found.problems) == 5
    assert found.problems[0] == "'train.steps' is not a setting: write section.key=value, as in train.steps=200"
    assert "a=[1 cannot be read" in found.problems[3]
    assert found.problems[4].startswith("precision.x cannot be set, because precision is a value")
    assert found.values == FILE
