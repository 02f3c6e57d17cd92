import re

import pytest

from launch.config import ConfigError, load_config

GROUP = "multi_worker_mirrored"
PYDANTIC = re.compile(r"Input should|Extra inputs|Field required|Value error|validation error|pydantic|\[type=", re.I)


def problems(*overrides) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config("configs/mnist.yaml", overrides)
    return caught.value.problems


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("train.steps=abc", "train.steps=abc must be a whole number: write it without quotes, as in 200"),
        (
            "elastic.outer_every=50",
            "elastic.outer_every=50 is of strategy.name=elastic, which .*auto does not choose .*workers=2 or more",
        ),
        ("train.steps=1.5", "train.steps=1.5 must be a whole number: .*"),
        ("train.steps=1e3", "train.steps=1000.0 must be a whole number: write 1000, with no point and no exponent"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate=nan must be a finite number: choose one"),
        ("optimizer.weight_decay=0", "optimizer.weight_decay=0 must be above 0: .* value, or null for none"),
        ("precision=float16", "precision=float16 must be one of .*: did you mean mixed_float16?"),
        (
            "model.name=resnet model.depth=20",
            "model.depth=20 must be one of 18, 34, 50, 101, 152: choose one of these",
        ),
        ("observe.profile_steps=[0,5]", r"observe.profile_steps\[0\]=0 must be above 0: choose a larger value"),
        ("train.steps=true", "train.steps=true must be a whole number: .*"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate=fast must be a number: .*"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate=0 must be above 0: choose a larger value"),
        ("train.seed=-1", "train.seed=-1 must be at least 0: choose a larger value"),
        ("train.ema=1.0", "train.ema=1 must be below 1: choose a smaller value"),
        ("optimizer.clip_norm=.inf", "optimizer.clip_norm=inf must be a finite number: choose one"),
        ("train.xla=1", "train.xla=1 must be true or false: .*"),
        ("model.hidden=128", r"model.hidden=128 must be a list: write it in brackets, as in \[1, 2\]"),
        ("model.hidden=[1,a]", r"model.hidden\[1\]=a must be a whole number: .*"),
        ("observe.profile_steps=[5]", r"observe.profile_steps must have more values than 1: add the missing ones"),
        ("observe.profile_steps=[5,6,7]", r"observe.profile_steps=\[5, 6, 7\] must have at most 2 values: remove some"),
        ("model=mlp", "model=mlp must be a section: write model.name=mlp"),
        ("train=5", "train=5 must be a section of keys and values: indent its keys below it"),
        ("model.name=boltzmann", "model.name=boltzmann must be one of mlp, cnn, .*:function: choose one of these"),
        ("data.name=mnist_sampel", "data.name=mnist_sampel must be one of .*: did you mean mnist_sample?"),
        ("optimizer.schedule.name=cosin", "optimizer.schedule.name=cosin must be .*: did you mean cosine?"),
        ("precision=fp32", "precision=fp32 must be one of float32, mixed_bfloat16, mixed_float16: .*"),
        ("cluster.kind=yarn", "cluster.kind=yarn must be one of local, ray, tpu: choose one of these"),
        (
            "strategy.name=one_device cluster.workers=2",
            "cluster.workers=2 must have a strategy that spreads a step over workers, not .*",
        ),
        (
            "strategy.name=horovod cluster.kind=ray cluster.workers=2 cluster.ray.gpus_per_worker=2",
            "cluster.ray.gpus_per_worker=2 must be at most 1 with strategy.name=horovod, .*: set it to 1 and "
            "cluster.workers=4",
        ),
        ("strategy.name=horovod", "strategy.name=horovod must have at least two workers: set cluster.workers=2, or .*"),
        ("cluster.workers=0", "cluster.workers=0 must be above 0: choose a larger value"),
        ("cluster.workers=two", "cluster.workers=two must be a whole number: .*"),
        ("cluster.workers.min=1", r"cluster.workers.max is missing \(most training processes\): add it"),
        (
            f"strategy.name={GROUP} cluster.workers.mx=4 cluster.workers.max=4",
            "cluster.workers.mx is not a setting: did you mean cluster.workers.max?",
        ),
        (
            "strategy.name=mirrored cluster.workers.max=4",
            "cluster.workers.max=4 must have a strategy that spreads a step over workers, .*",
        ),
        ("cluster.workers=2 cluster.workers.min=3", "cluster.workers.min=3 must be at most cluster.workers.max=2: .*"),
        ("cluster.hang_after=60", "cluster.hang_after=60 must be a number of seconds above zero .*"),
        ("cluster.local.return_after=0s", "cluster.local.return_after=0s must be a number of seconds above zero .*"),
        (
            f"strategy.name={GROUP} data.batch_size=32 cluster.workers.min=1 cluster.workers.max=3",
            r"cluster.workers.max=3 must divide data.batch_size=32: set data.batch_size to a multiple of 3 \(of 1 to 3 "
            r"workers these can be used: 1, 2\)",
        ),
        (
            f"strategy.name={GROUP} cluster.workers=2 data.remainder=keep",
            "data.remainder=keep leaves a last batch that cluster.workers=2 need not divide: .*",
        ),
        ("trian.steps=5", "trian is not a setting: did you mean train?"),
        ("train.step_per_loop=5", "train.step_per_loop is not a setting: did you mean train.steps_per_loop?"),
        ("train.batch_size=5", "train.batch_size is not a setting: did you mean data.batch_size?"),
        ("batch_size=5", "batch_size is not a setting: did you mean data.batch_size?"),
        ("model.layers=2", "model.layers is not a setting of model.name=mlp: remove it, or use one of activation, .*"),
        ("train.zzz=2", "train.zzz is not a setting of train: remove it, or use one of accumulate, .*"),
        ("data.name=csv data.target=y", r"data.path is missing \(a file, .*\): add it"),
        ("warm_start.exclude=[]", r"warm_start.path is missing \(a run folder, .*\): add it"),
        ("run.name=a/b", r"run.name=a/b has a form that is not allowed \(letters, digits, .*\): write it differently"),
        ("run.dir=''", 'run.dir="" must have at least 1 characters: add some'),
        ("data.cache_limit=3q", "data.cache_limit: '3q' is not a size: .*"),
        ("checkpoint.every=10min", 'checkpoint.every=10min must have the unit .*'),
        ("data.augment=[spin]", r"data.augment\[0\]: augmentation 'spin' does not exist: .*"),
        ("task.label_smoothing=1", "task.label_smoothing=1 must be below 1: .*"),
    ],
)  # fmt: skip
def test_sentence_names_value_rule_and_change(overrides, expected):
    (problem,) = problems(*overrides.split())
    assert re.fullmatch(expected.replace("?", r"\?"), problem)
    assert not PYDANTIC.search(problem)


def test_a_problem_in_the_file_comes_with_its_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("model:\n  name: mlp\n  dropout: 1.5\ndata: {name: digits}\ntrain:\n  epochs: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.problems == (f"model.dropout=1.5 must be below 1: choose a smaller value ({path}, line 3)",)


def test_required_sections_are_asked_for_by_name(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("data: {batch_size: 3}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    found = "\n".join(caught.value.problems)
    assert "model.name is missing: choose one of mlp, cnn" in found
    assert "data.name is missing: choose one of mnist_sample" in found
    assert "train is missing (length and execution of the training): add it" in found
    assert not PYDANTIC.search(found)


def test_a_file_that_writes_a_setting_as_the_command_line_does_is_told_how_to_nest_it(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "model: {name: resnet, input.size: 64}\ndata: {name: digits}\ndata.batch_size: 3\ntrain: {epochs: 1}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    rule = "is a setting in a section, which a file nests"
    assert sorted(caught.value.problems) == [
        f"data.batch_size {rule}: write data: {{batch_size: 3}} ({path}, line 3)",
        f"model.input.size {rule}: write input: {{size: 64}} ({path}, line 1)",
    ]


def test_long_values_are_cut():
    (problem,) = problems(f"train.steps={'x' * 500}")
    assert len(problem) < 150


def test_sections_in_a_list_are_told_by_their_own_keys():
    sources = "data.sources=[{weight: 1, data: {name: mnist_smaple}}, {wieght: 2, data: {name: csv, target: y}}]"
    name, weight, path, key = problems("data.name=mixture", sources)
    assert name.startswith("data.sources[0].data.name=mnist_smaple must be one of mnist_sample, mnist, ")
    assert name.endswith(": did you mean mnist_sample?")
    assert weight == (
        "data.sources[1].weight is missing (its share of the samples, relative to the other weights): add it"
    )
    assert path.startswith("data.sources[1].data.path is missing")
    assert key == "data.sources[1].wieght is not a setting: did you mean data.sources[1].weight?"
