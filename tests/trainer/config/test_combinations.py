import re

import pytest
from pydantic import ValidationError

from trainer.config.combinations import batch_problems
from trainer.config.training import TrainingConfig

MNIST = {"model": {"name": "mlp"}, "data": {"name": "mnist_sample", "batch_size": 32}, "train": {"epochs": 5}}
TEXT = {
    "model": {"name": "transformer_lm"},
    "task": {"name": "language_modelling"},
    "data": {"name": "text", "path": "texts"},
    "train": {"steps": 10},
}


def merged(base, **changes):
    values = {section: dict(keys) for section, keys in base.items()}
    for section, keys in changes.items():
        values[section] = {**values.get(section, {}), **keys} if isinstance(keys, dict) else keys
    return values


def problems(values):
    with pytest.raises(ValidationError) as caught:
        TrainingConfig.model_validate(values)
    return caught.value.errors()[0]["msg"].removeprefix("Value error, ").split("\n")


@pytest.mark.parametrize("values", [MNIST, TEXT], ids=["mnist", "text"])
def test_the_bases_are_possible(values):
    TrainingConfig.model_validate(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": {"accumulate": 4, "synchronize_batch_norm": True}},
            "train.synchronize_batch_norm=true does not go with train.accumulate=4, .* set train.accumulate=1, or .*$",
        ),
        (
            {"train": {"synchronize_batch_norm": True}, "strategy": {"name": "parameter_server"}},
            "train.synchronize_batch_norm=true does not go with strategy.name=parameter_server, .*=false$",
        ),
        (
            {"train": {"synchronize_batch_norm": True, "xla": True, "xla_scope": "step"}},
            "train.synchronize_batch_norm=true .* cannot compile with strategy.name=auto, .* set train.xla_scope=auto",
        ),
        (
            {"train": {"synchronize_batch_norm": True}, "elastic": {"outer_every": 50}},
            "train.synchronize_batch_norm=true does not go with elastic.outer_every=50, .*=false$",
        ),
        (
            {
                "train": {"synchronize_batch_norm": True},
                "strategy": {"name": "mirrored", "devices": 2},
                "freeze": [{"layers": ["x"], "until": "5st"}],
            },
            "freeze with until makes branches .* strategy.name=mirrored: set until to null, .*=false$",
        ),
        ({"train": {"accumulate": 3}}, "train.accumulate=3 must divide data.batch_size=32: .* a multiple of 3$"),
        (
            {"train": {"accumulate": 3}, "strategy": {"name": "mirrored", "devices": 2}},
            "train.accumulate=3 must divide the batch 16 of each part: set data.batch_size to a multiple of 6$",
        ),
        (
            {"strategy": {"name": "mirrored", "devices": 5}},
            "strategy.devices=5 must divide data.batch_size=32: set data.batch_size to a multiple of 5$",
        ),
        (
            {"strategy": {"name": "mirrored"}, "elastic": {"check_every": "500st"}},
            "elastic.check_every=500st does not go with strategy.name=mirrored, .* set strategy.name=elastic$",
        ),
        (
            {"elastic": {"shard_optimizer": True}, "precision": "mixed_float16"},
            "precision=mixed_float16 has a loss scale, .* set precision=mixed_bfloat16$",
        ),
        (
            {"elastic": {"shard_optimizer": True}, "freeze": [{"layers": ["x"], "until": "5st"}]},
            "freeze with until does not go with elastic.shard_optimizer=true: set until to null",
        ),
        (
            {"elastic": {"outer_momentum": 0.5}},
            "elastic.outer_momentum=0.5 is of the outer optimizer, .* set elastic.outer_every=100",
        ),
        (
            {"elastic": {"outer_every": 20}},
            "elastic.outer_every=20 must divide train.log_every=50, .* to a multiple of 20$",
        ),
        (
            {"elastic": {"outer_every": 50}, "train": {"epochs": None, "steps": 120}},
            "elastic.outer_every=50 must divide train.steps=120, .* set train.steps to 100$",
        ),
        (
            {"elastic": {"outer_every": 50, "shard_optimizer": True}},
            "elastic.shard_optimizer=true does not go with elastic.outer_every=50, .* remove one of them$",
        ),
        (
            {"elastic": {"outer_every": 50, "check_every": "5st"}},
            "elastic.check_every=5st compares what workers compute in one step .* remove one of them$",
        ),
        (
            {"elastic": {"top_k": 0.1, "compression": "float16"}},
            "elastic.top_k=0.1 goes with elastic.compression=top_k, and not with float16: set .* or remove",
        ),
        (
            {"elastic": {"compression": "top_k", "outer_every": 50}},
            "elastic.compression=top_k does not go with elastic.outer_every=50, .* remove one of them$",
        ),
        (
            {"elastic": {"compression": "float16", "shard_optimizer": True}},
            "elastic.compression=float16 does not go with elastic.shard_optimizer=true, .* remove one of them$",
        ),
        (
            {"elastic": {"overlap": "always"}, "train": {"xla": True, "xla_scope": "step"}},
            "train.xla_scope=step computes all gradients in one program, .* set train.xla_scope=update$",
        ),
        (
            {"elastic": {"overlap": "always", "compression": "top_k"}},
            "elastic.compression=top_k looks at all gradients of a part .* or remove elastic.overlap$",
        ),
        (
            {"elastic": {"overlap": "always"}, "train": {"synchronize_batch_norm": True}},
            "train.synchronize_batch_norm=true exchanges statistics while gradients are computed, .* remove one of",
        ),
        (
            {"elastic": {"overlap": "always", "outer_every": 50}},
            "elastic.outer_every=50 adds up replicas, and not gradients, .* remove one of them$",
        ),
        (
            {"elastic": {"nccl": "exact", "compression": "bfloat16"}},
            "elastic.nccl=exact adds up on GPUs .* elastic.compression=bfloat16, .* or remove elastic.compression$",
        ),
        ({"elastic": {"check_every": "5s"}}, 'must be in steps or epochs, as in "200st" or "1ep": a clock differs'),
        ({"train": {"virtual_workers": 6}}, "train.virtual_workers=6 must divide data.batch_size=32"),
        (
            {"train": {"virtual_workers": 8}, "strategy": {"name": "mirrored", "devices": 3}},
            "strategy.devices=3 must divide train.virtual_workers=8",
        ),
        (
            {"train": {"accumulate": 2}, "data": {"remainder": "keep"}},
            "data.remainder=keep leaves a last batch that train.accumulate=2 need not divide",
        ),
        ({"model": {"name": "transformer_lm"}}, "model.name=transformer_lm must have task.name=language_modelling"),
        ({"task": {"name": "language_modelling"}}, "must have a model of token sequences, not model.name=mlp"),
        (
            {"data": {"name": "synthetic", "kind": "regression"}},
            "task.name=classification does not fit data.name=synthetic with data.kind=regression",
        ),
        (
            {"data": {"name": "csv", "path": "a.csv", "target": "y", "target_kind": "number"}},
            "set task.name=regression",
        ),
        (
            {"data": {"name": "images", "path": "people", "held_out_by": "class"}},
            "task.name=classification cannot measure .* data.held_out_by=class holds out: set task.name=verification",
        ),
        (
            {"task": {"name": "retrieval"}},
            "task.name=retrieval does not go with model.name=mlp: set model.name=two_tower",
        ),
        (
            {"data": {"name": "movielens", "kind": "ranking"}, "task": {"name": "regression"}},
            "does not fit data.name=movielens with data.kind=ranking, .*: set task.name=classification",
        ),
        ({"optimizer": {"schedule": {"warmup": "5ep"}}}, "optimizer.schedule.warmup=5ep must be shorter"),
        (
            {"checkpoint": {"best_metric": "accuracy"}, "evaluate": {"every": None}},
            'checkpoint.best_metric=accuracy must have evaluations .* set evaluate.every="1ep"',
        ),
        (
            {"train": {"epochs": None, "steps": 100}, "observe": {"profile_steps": [90, 101]}},
            r"observe.profile_steps=\[90, 101\] must lie within the training, train.steps=100: .* from 1 to 100",
        ),
    ],
)
def test_impossible_combination_is_one_sentence_with_the_change(changes, message):
    found = problems(merged(MNIST, **changes))
    assert len(found) == 1
    assert re.search(message, found[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"accumulate": 4}, "strategy": {"name": "mirrored", "devices": 2}},
        {"train": {"virtual_workers": 8, "accumulate": 2}, "strategy": {"name": "mirrored", "devices": 2}},
        {"data": {"remainder": "keep"}},
        {"train": {"epochs": None, "steps": 100}, "observe": {"profile_steps": [90, 100]}},
        {"optimizer": {"schedule": {"warmup": "4ep"}}},
        {"task": {"name": "my.tasks:build"}, "model": {"name": "transformer_lm"}},
        {"model": {"name": "my.models:build"}, "task": {"name": "language_modelling"}},
    ],
)
def test_possible_combination_is_accepted(changes):
    TrainingConfig.model_validate(merged(MNIST, **changes))


def test_all_impossible_combinations_are_found_at_once():
    found = problems(
        merged(
            MNIST,
            train={"accumulate": 3},
            task={"name": "language_modelling"},
            checkpoint={"best_metric": "loss"},
            evaluate={"every": None},
        )
    )
    assert len(found) == 3


@pytest.mark.parametrize(("steps", "epochs"), [(None, None), (10, 1)])
def test_exactly_one_length_is_given(steps, epochs):
    with pytest.raises(ValidationError, match=r"train.steps.* and train.epochs"):
        TrainingConfig.model_validate(merged(MNIST, train={"steps": steps, "epochs": epochs}))


@pytest.mark.parametrize("name", ["one_device", "multi_worker_mirrored"])
def test_every_elastic_option_that_is_given_is_refused_elsewhere(name):
    options = {"check_every": "5st", "outer_momentum": 0.5}
    found = problems(merged(MNIST, strategy={"name": name}, elastic=options))
    assert [problem.partition("=")[0] for problem in found] == ["elastic.check_every", "elastic.outer_momentum"]


def test_one_device_is_one():
    with pytest.raises(ValidationError, match=r"strategy.devices=2 must be 1"):
        TrainingConfig.model_validate(merged(MNIST, strategy={"name": "one_device", "devices": 2}))


def test_workers_have_no_devices_setting():
    strategy = {"name": "multi_worker_mirrored", "devices": 2}
    with pytest.raises(ValidationError, match=r"strategy.devices=2 must not be set with strategy.name=multi_worker"):
        TrainingConfig.model_validate(merged(MNIST, strategy=strategy))


@pytest.mark.parametrize(
    ("workers", "changes", "message"),
    [
        (2, {}, None),
        (5, {}, "cluster.workers=5 must divide data.batch_size=32: set data.batch_size to a multiple of 5"),
        (3, {"train": {"virtual_workers": 8}}, "cluster.workers=3 must divide train.virtual_workers=8"),
        (2, {"data": {"remainder": "keep"}}, "data.remainder=keep leaves a last batch that cluster.workers=2 need not"),
    ],
)
def test_a_number_of_workers_must_divide_the_batch(workers, changes, message):
    config = TrainingConfig.model_validate(merged(MNIST, strategy={"name": "multi_worker_mirrored"}, **changes))
    found = batch_problems(config, workers, "cluster.workers")
    assert (found == []) if message is None else (len(found) == 1 and message in found[0])


def test_profile_steps_are_in_order():
    with pytest.raises(ValidationError, match="must be the first and the last step"):
        TrainingConfig.model_validate(merged(MNIST, observe={"profile_steps": [20, 10]}))


def test_histograms_need_tensorboard():
    with pytest.raises(ValidationError, match=r"observe.histograms_every=1ep needs observe.tensorboard=true"):
        TrainingConfig.model_validate(merged(MNIST, observe={"histograms_every": "1ep", "tensorboard": False}))


def test_warm_start_patterns_are_regular_expressions():
    with pytest.raises(ValidationError, match="must be a regular expression"):
        TrainingConfig.model_validate(merged(MNIST, warm_start={"path": "runs/x", "include": ["("]}))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"name": "horovod", "compression": "bfloat16"}, r"Horovod cannot add up: set strategy.compression=float16"),
        ({"name": "horovod", "devices": 2}, r"strategy.devices=2 must not be set with strategy.name=horovod"),
        ({"compression": "float16"}, r"must have strategy.name=horovod, not auto: set strategy.compression=bfloat16"),
    ],
)
def test_what_horovod_cannot_do_and_what_only_horovod_can(strategy, message):
    with pytest.raises(ValidationError, match=message):
        TrainingConfig.model_validate(merged(MNIST, strategy=strategy))
