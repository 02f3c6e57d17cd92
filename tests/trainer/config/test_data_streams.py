from typing import Any

import pytest
from pydantic import ValidationError

from trainer.config.data_streams import ImagesData, RecordFeature, TextData, TfdsData, TfrecordData

IMAGE, LABEL = {"kind": "image", "key": "image/encoded"}, {"kind": "integer"}
RECORDS = {"pattern": "x", "features": {"image": IMAGE, "label": LABEL}, "num_classes": 10}


def test_records_as_a_config_names_them() -> None:
    data = TfrecordData(**{**RECORDS, "image_size": [32, 64]})
    assert data.image_size == (32, 64)
    assert data.features["image"] == RecordFeature(kind="image", key="image/encoded")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "class"}, "data.target='class' is not in data.features"),
        ({"target": "image"}, "data.target='image' is an image"),
        ({"num_classes": None}, "data.num_classes is missing"),
        ({"features": {}}, "at least 1 item"),
        ({"features": {"a": IMAGE, "b": IMAGE, "label": LABEL}}, "'a' and 'b' both read the key 'image/encoded'"),
        ({"features": {"x": {"kind": "raw"}, "label": LABEL}}, "needs its shape"),
        ({"features": {"x": {"kind": "float", "offset": 1}, "label": LABEL}}, "offset says nothing about"),
        ({"features": {"x": {**IMAGE, "shape": [3]}, "label": LABEL}}, "shape says nothing about"),
        ({"features": {"x": {"kind": "video"}, "label": LABEL}}, "'image', 'integer', 'float' or 'raw'"),
        ({"image_size": [0, 4]}, "greater than 0"),
    ],
)
def test_records_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TfrecordData(**{**RECORDS, **change})


def test_a_number_and_a_language_model_need_no_classes() -> None:
    TfrecordData(pattern="x", features={"y": RecordFeature(kind="float")}, target="y")
    tokens = RecordFeature(kind="integer", shape=(65,), num_values=300)
    assert TfrecordData(pattern="x", features={"tokens": tokens}, target=None, num_classes=300).target is None


def test_bytes_have_no_vocabulary() -> None:
    assert TextData(path="x", tokenizer="subword", vocabulary=300).vocabulary == 300
    with pytest.raises(ValidationError, match=r"data\.vocabulary=300 does not go with bytes"):
        TextData(path="x", vocabulary=300)
    with pytest.raises(ValidationError, match="greater than or equal to 257"):
        TextData(path="x", tokenizer="subword", vocabulary=256)


@pytest.mark.parametrize("name", ["tfds:mnist", "tfds:cifar10:3.0.2", "tfds:glue/cola", "tfds:glue/cola:1.0.0"])
def test_names_of_data_sets(name: str) -> None:
    assert TfdsData(name=name).dataset == name[5:]


@pytest.mark.parametrize("name", ["tfds:", "tfds:../x", "mnist", "tfds:mnist:latest"])
def test_what_is_no_name_of_a_data_set(name: str) -> None:
    with pytest.raises(ValidationError):
        TfdsData(name=name)


def test_channels_of_images() -> None:
    with pytest.raises(ValidationError):
        ImagesData.model_validate({"path": "x", "channels": 2})
