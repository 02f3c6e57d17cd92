from pathlib import Path

import pytest

from launch.config import load_config
from launch.config_schema import json_schema
from launch.yaml_text import read_document

SCHEMA = json_schema()


def resolve(reference):
    return SCHEMA["$defs"][reference["$ref"].rpartition("/")[2]]


def test_every_section_is_there_and_closed():
    assert {"run", "model", "task", "data", "train", "optimizer", "cluster"} <= SCHEMA["properties"].keys()
    assert SCHEMA["additionalProperties"] is False
    assert all(section.get("additionalProperties") is False for section in SCHEMA["$defs"].values())


def test_a_section_chosen_by_name_offers_each_name_once():
    variants = [resolve(item) for item in SCHEMA["properties"]["model"]["oneOf"]]
    names = [variant["properties"]["name"].get("const") for variant in variants]
    assert names == [
        "mlp",
        "cnn",
        "resnet",
        "efficientnet_v2",
        "mobilenet_v3",
        "convnext",
        "vit",
        "unet",
        "tabular",
        "wide_and_deep",
        "dcn",
        "two_tower",
        "dlrm",
        "transformer_lm",
        "bert",
        "tcn",
        "transformer_forecaster",
        None,
    ]
    assert all("name" in variant["required"] for variant in variants)
    assert variants[-1]["properties"]["name"]["pattern"]


def test_nested_choices_are_there_too():
    optimizer = resolve(SCHEMA["properties"]["optimizer"]["oneOf"][0])
    schedules = [resolve(item)["properties"]["name"]["const"] for item in optimizer["properties"]["schedule"]["oneOf"]]
    assert schedules == ["constant", "cosine", "linear", "step"]


def test_settings_are_described_for_the_editor():
    train = resolve(SCHEMA["properties"]["train"])
    assert all("description" in setting for setting in train["properties"].values())


FILES = sorted(Path("configs").glob("*.yaml"))
VALID = [
    *FILES,
    "model: {name: mlp}\ndata: {name: 'tfds:mnist'}",
    "model: {name: 'mine.models:build'}\ndata: {name: 'mine.data:open_it'}\ntask: {name: 'mine.tasks:make'}",
    "model: {name: mlp}\ndata: {name: digits}\ntask: {label_smoothing: 0.1}\n"
    "optimizer: {learning_rate: 0.1, schedule: {warmup: 5st}}",
]


@pytest.mark.parametrize("config", VALID, ids=lambda config: config.stem if isinstance(config, Path) else "text")
def test_what_trains_is_valid_for_an_editor(config, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    if isinstance(config, str):
        path = tmp_path / "mine.yaml"
        path.write_text(f"{config}\ntrain: {{epochs: 1}}")
    else:
        path = config
    load_config(path)
    jsonschema.validate(read_document(path.read_text(), str(path)).values, SCHEMA)


@pytest.mark.parametrize(
    "config", ["model: {hidden: [3]}\ndata: {name: digits}", "model: {name: mlp}\ndata: {name: tfds}"]
)
def test_what_does_not_train_is_not_valid(config):
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read_document(f"{config}\ntrain: {{epochs: 1}}", "it").values, SCHEMA)
