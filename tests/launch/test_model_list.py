import json

import pytest

from launch.cli import run
from launch.config_keys import kind_of
from launch.model_list import EXAMPLES, list_models
from launch.run_config import RunConfig
from trainer.config.choice import chosen
from trainer.config.recommendation import RetrievalTask
from trainer.config.segmentation import SegmentationTask
from trainer.config.task import (
    ClassificationTask,
    LanguageModellingTask,
    MaskedLmTask,
    MultiLabelTask,
    RegressionTask,
)
from trainer.config.verification import VerificationTask
from trainer.data.source import Feature, Schema

TASKS = {
    "classification": ClassificationTask(),
    "regression": RegressionTask(),
    "multi_label": MultiLabelTask(),
    "language_modelling": LanguageModellingTask(),
    "masked_lm": MaskedLmTask(),
    "segmentation": SegmentationTask(),
    "retrieval": RetrievalTask(),
    "verification": VerificationTask(),
}
TARGETS = {
    "classification": Feature((), "int32"),
    "regression": Feature((), "float32"),
    "multi_label": Feature((3,), "int32", num_values=2),
}
# Seconds each to build.
LARGE = ("resnet", "efficientnet_v2", "mobilenet_v3", "convnext")
MODELS = kind_of(RunConfig.model_fields["model"]).sections


def test_json_lists_every_model(capsys):
    assert run(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in listed] == [*EXAMPLES, "package.module:function"]
    assert listed[0]["parameters"] == 784 * 128 + 128 + 128 * 10 + 10
    assert listed[0]["bytes"] == 4 * listed[0]["parameters"]
    assert listed[0]["options"]["hidden"] == [128]


def test_the_list_for_people_names_sizes_and_tasks(capsys):
    assert run(["models"]) == 0
    text = capsys.readouterr().out
    assert "mlp: Dense layers" in text
    assert "101.8k parameters, 398 KiB" in text


@pytest.mark.parametrize(
    ("name", "task"),
    [(name, task) for name, example in EXAMPLES.items() if name not in LARGE for task in example.tasks],
)
def test_a_task_that_is_said_to_fit_does(name, task):
    from trainer.models.registry import build_model
    from trainer.tasks.registry import build_task

    schema = EXAMPLES[name].schema
    if task in TARGETS and task != EXAMPLES[name].tasks[0]:
        num_classes = 3 if task == "classification" else None
        schema = Schema({**schema.inputs, "label": TARGETS[task]}, "label", schema.num_samples, num_classes)
    section = chosen(MODELS, name)
    assert section is not None
    built_task = build_task(TASKS[task], schema)
    model = build_model(section(), schema, built_task)  # pyright: ignore[reportArgumentType]
    assert model.count_params() > 0


def test_every_model_with_a_name_has_an_example():
    assert {model.name for model in list_models()} - {"package.module:function"} == EXAMPLES.keys()
