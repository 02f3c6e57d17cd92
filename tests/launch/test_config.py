from pathlib import Path

import pytest

from launch.config import ConfigError, RunConfig, load_config, write_config

MNIST = """\
model: {name: mlp, hidden: [128]}
data: {name: mnist_sample, batch_size: 32}
train: {epochs: 5, xla: true}
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(path, *overrides) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return caught.value.problems


def test_defaults_and_the_name_of_the_file(write):
    config = load_config(write(MNIST))
    assert config.run.folder == Path("runs/mine")
    assert config.optimizer.name == "adam"
    assert config.task.name == "classification"
    assert config.cluster.kind == "local"


@pytest.mark.parametrize(("name", "expected"), [("a b.yaml", "a-b"), ("_x.yaml", "x"), ("é.yaml", "run")])
def test_a_file_name_becomes_a_run_name(write, name, expected):
    assert load_config(write(MNIST, name)).run.name == expected


def test_overrides_replace_the_file(write):
    config = load_config(write(MNIST), ["model.hidden=[256,128]", "data.batch_size=64", "optimizer.learning_rate=1e-2"])
    assert config.model.hidden == (256, 128)
    assert (config.data.batch_size, config.optimizer.learning_rate) == (64, 0.01)


def test_a_length_on_the_command_line_replaces_the_other_length(write):
    path = write(MNIST)
    assert (load_config(path, ["train.steps=200"]).train.steps, load_config(path).train.epochs) == (200, 5)
    assert load_config(path, ["train.steps=200"]).train.epochs is None


def test_another_variant_on_the_command_line_leaves_out_the_file_s_own_keys(write):
    config = load_config(write(MNIST), ["model.name=cnn"])
    assert (config.model.name, config.data.batch_size) == ("cnn", 32)


def test_another_variant_does_not_hide_a_mistyped_key(write):
    path = write(MNIST.replace("hidden: [128]", "hidden: [128], hiden: [1]"))
    assert len(problems(path, "model.name=cnn")) == 1


def test_a_number_can_be_a_name(write):
    assert load_config(write(MNIST), ["run.name=7"]).run.name == "7"


def test_empty_sections_are_sections_without_settings(write):
    assert load_config(write(MNIST + "optimizer:\nwarm_start:\n")).warm_start is None


def test_a_dollar_in_a_path_is_written_so_that_it_is_read_again(write, monkeypatch):
    monkeypatch.setenv("DATA", "/data/$x")
    config = load_config(write(MNIST), ["run.dir=${DATA}/a$$b"])
    assert str(config.run.folder) == "/data/$x/a$b/mine"
    assert load_config(write(write_config(config), "config.yaml")) == config


def test_the_written_config_repeats_the_run(write):
    config = load_config(write(MNIST), ["checkpoint.every=500st", "data.cache_limit=2GiB", "optimizer.epsilon=1e-08"])
    assert load_config(write(write_config(config), "config.yaml")) == config


@pytest.mark.parametrize(
    ("file", "overrides", "expected", "sizes"),
    [
        ("workers: 2", [], 2, (2,)),
        ("workers: 2", ["cluster.workers={min: 1, max: 4}"], (1, 4), (1, 2, 4)),
        ("workers: 4", ["cluster.workers.min=1"], (1, 4), (1, 2, 4)),
        ("workers: 1", ["cluster.workers.max=3", "data.batch_size=6"], (1, 3), (1, 2, 3)),
        ("workers: {min: 2, max: 8}", ["train.accumulate=4"], (2, 8), (2, 4, 8)),
        ("workers: {max: 8}", ["train.virtual_workers=8", "data.batch_size=64"], (1, 8), (1, 2, 4, 8)),
        ("workers: {min: 1, max: 4}", ["cluster.workers=2"], 2, (2,)),
    ],
)
def test_workers_are_a_number_or_a_range_and_each_end_of_it_can_be_set(write, file, overrides, expected, sizes):
    path = write(f"{MNIST}strategy: {{name: multi_worker_mirrored}}\ncluster: {{{file}}}\n")
    config = load_config(path, overrides)
    workers = config.cluster.workers
    assert (workers if isinstance(workers, int) else (workers.min, workers.max)) == expected
    assert (config.cluster.min_workers, config.cluster.max_workers) == (sizes[0], sizes[-1])
    assert config.sizes == sizes
    assert load_config(write(write_config(config), "again.yaml")) == config


def test_importable_functions_and_data_sets_by_name(write):
    config = load_config(write(MNIST), ["model.name=pkg.mod:fn", "data.name=tfds:mnist"])
    assert type(config.model).__name__ == "CustomModel"
    assert type(config.data).__name__ == "TfdsData"
    config = load_config(write(MNIST), ["data.name=pkg.mod:fn", "data.options={a: 1}", "task.name=pkg.mod:fn"])
    assert config.data.options == {"a": 1}


def test_variables_are_replaced_in_paths_only(write, monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    path = write(MNIST)
    assert load_config(path, ["data.name=arrays", "data.path=${DATA}/a.npz"]).data.path == "/data/a.npz"
    assert load_config(path, ["run.dir=${DATA}/runs"]).run.folder == Path("/data/runs/mine")
    assert len(problems(path, "run.name=${DATA}")) == 1


def test_an_undefined_variable_is_named(write, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    assert problems(write(MNIST), "run.dir=${NOWHERE}/x") == (
        'run.dir="${NOWHERE}/x" must use variables that are set, and NOWHERE is not: set it, or write the path out',
    )


def test_missing_file_says_what_is_near(write):
    path = write(MNIST, "mnist.yaml")
    (problem,) = problems(path.with_name("mnits.yaml"))
    assert problem == f"there is no file {path.with_name('mnits.yaml')}: did you mean {path}?"


def test_folder_and_binary_files_are_refused_in_a_sentence(tmp_path):
    assert "is a folder" in problems(tmp_path)[0]
    (tmp_path / "x.yaml").write_bytes(b"model: \xff\n")
    assert "must be UTF-8 text, and byte 7 is not" in problems(tmp_path / "x.yaml")[0]


def test_all_problems_are_reported_at_once(write):
    path = write(
        """\
model: {name: mlp, hiden: [128], dropout: "0.2"}
data: {name: mnist_sample, batch_size: 32, batch_size: 64}
train: {epochs: 5, accumulate: 3, xla: yes}
precision: mixed_flaot16
checkpoint: {every: 500, best_metric: accuracy}
evaluate: {every: null}
warm_start: {path: "${UNSET_VARIABLE}/x"}
"""
    )
    found = "\n".join(problems(path, "train.stpes=3", "oops"))
    for expected in (
        "data.batch_size is given twice",
        "'oops' is not a setting",
        f"model.hiden is not a setting: did you mean model.hidden? ({path}, line 1)",
        'model.dropout="0.2" must be a number',
        "train.xla=yes must be true or false",
        "train.stpes is not a setting: did you mean train.steps?",
        "precision=mixed_flaot16 must be one of float32, mixed_bfloat16, mixed_float16: did you mean mixed_float16?",
        "checkpoint.every=500 must be text with a unit",
        "UNSET_VARIABLE is not",
        # Rules between settings speak although single settings are wrong.
        "train.accumulate=3 must divide data.batch_size=64",
        "checkpoint.best_metric=accuracy must have evaluations",
    ):
        assert expected in found
    assert len(found.splitlines()) == 11


def test_a_wrong_setting_causes_no_second_complaint(write):
    assert len(problems(write(MNIST.replace("epochs: 5", "epochs: five")))) == 1


def test_a_config_is_closed_and_frozen():
    config = load_config("configs/mnist.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.train.steps = 3
    assert isinstance(config, RunConfig)
