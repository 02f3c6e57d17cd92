import pytest

from trainer.config_changes import config_changes

STORED = {
    "run": {"name": "a", "dir": "runs"},
    "model": {"name": "mlp", "hidden": [128]},
    "data": {"name": "digits", "cache": "none", "batch_size": 32},
    "train": {"steps": 100, "epochs": None, "seed": 0, "virtual_workers": None, "on_nan": "stop"},
    "optimizer": {"name": "adam", "schedule": {"name": "constant"}},
    "checkpoint": {"every": "60s", "keep": 3},
    "warm_start": None,
    "cluster": {"kind": "local", "workers": 1},
}


def changed(**sections) -> dict:
    return STORED | {
        name: STORED[name] | values if isinstance(values, dict) and isinstance(STORED[name], dict) else values
        for name, values in sections.items()
    }


def test_equal_configs_have_no_changes():
    assert config_changes(STORED, changed()) == []


def test_lists_and_tuples_are_the_same():
    assert config_changes(STORED, changed(model={"hidden": (128,)})) == []


@pytest.mark.parametrize(
    ("sections", "key", "free"),
    [
        ({"run": {"dir": "/mnt"}}, "run.dir", True),
        ({"checkpoint": {"every": "5s"}}, "checkpoint.every", True),
        ({"data": {"cache": "disk"}}, "data.cache", True),
        ({"train": {"on_nan": "rollback"}}, "train.on_nan", True),
        ({"train": {"steps": 200}}, "train.steps", True),
        ({"train": {"seed": 1}}, "train.seed", False),
        ({"data": {"batch_size": 64}}, "data.batch_size", False),
        ({"model": {"hidden": [256]}}, "model.hidden", False),
        ({"warm_start": {"path": "runs/b"}}, "warm_start", False),
        ({"cluster": {"workers": 2}}, "cluster.workers", False),
        ({"cluster": {"hang_after": "60s"}}, "cluster.hang_after", True),
        ({"cluster": {"local": {"hosts": 2}}}, "cluster.local", True),
    ],
)
def test_what_may_change_the_curve_needs_the_users_word(sections: dict, key: str, free: bool):
    [change] = config_changes(STORED, changed(**sections))
    assert (change.key, change.free) == (key, free)


def test_a_new_length_is_not_free_when_the_learning_rate_is_spread_over_it():
    schedule = {"optimizer": {"schedule": {"name": "cosine"}}}
    [change] = config_changes(changed(**schedule), changed(train={"steps": 200}, **schedule))
    assert str(change) == (
        "train.steps: 100 -> 200 (the learning-rate schedule is spread over the whole run, so its rest changes)"
    )
    assert not change.free


def test_the_number_of_workers_is_free_with_virtual_workers():
    stored = changed(train={"virtual_workers": 8})
    [change] = config_changes(stored, changed(train={"virtual_workers": 8}, cluster={"workers": 4}))
    assert change.free


def test_a_run_between_two_sizes_may_get_others():
    stored = changed(cluster={"workers": {"min": 1, "max": 4}})
    [change] = config_changes(stored, changed(cluster={"workers": {"min": 1, "max": 8}}))
    assert change.free and change.key == "cluster.workers.max"
    [change] = config_changes(stored, changed(cluster={"workers": 4}))
    assert not change.free


def test_settings_that_came_or_went_are_listed_with_null():
    new = changed(model={"dropout": 0.5})
    del new["data"]
    texts = [str(change) for change in config_changes(STORED, new)]
    assert texts[0] == "model.dropout: null -> 0.5 (the stored weights may not fit)"
    assert texts[1].startswith("data: {'name': 'digits'")
