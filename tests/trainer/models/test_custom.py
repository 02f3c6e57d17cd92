import sys
from pathlib import Path

import keras
import pytest

from tests.trainer.models.example_data import COLUMNS, IMAGES, batch_of
from trainer.config.model import CustomModel
from trainer.config.task import ClassificationTask
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

MODULE = """
import keras

def plain():
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])

class Subclassed(keras.Model):
    def __init__(self, width, outputs):
        super().__init__()
        self.hidden = keras.layers.Dense(width)
        self.last = keras.layers.Dense(outputs)
    def call(self, x):
        return self.last(self.hidden(keras.ops.reshape(x, (-1, 28 * 28))))

def from_schema(schema, task, width=4):
    assert task.output_shape == (schema.num_classes,)
    return Subclassed(width, schema.num_classes)

def wrong_shape():
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(7)])

def layer():
    return keras.layers.Dense(10)

def two_outputs():
    x = keras.Input((28, 28, 1))
    y = keras.layers.Dense(10)(keras.layers.Flatten()(x))
    return keras.Model(x, [y, y])
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_models.py").write_text(MODULE)
    (tmp_path / "broken_models.py").write_text("import no_such_package\n")
    (tmp_path / "failing_models.py").write_text("1 / 0\n")
    yield "my_models"
    for name in ("my_models", "broken_models", "failing_models"):
        sys.modules.pop(name, None)


def build(name: str, schema=IMAGES, precision: str = "float32", **options) -> keras.Model:
    config = CustomModel(name=name, options=options)
    return build_model(config, schema, build_task(ClassificationTask(), schema), precision)


def test_a_model_that_knows_nothing_of_us(module):
    model = build(f"{module}:plain", precision="mixed_bfloat16")
    assert model(batch_of(IMAGES)["image"]).shape == (4, 10)
    assert model.layers[-1].compute_dtype == "bfloat16"


def test_a_subclassed_model_gets_schema_task_and_options_and_is_built(module):
    model = build(f"{module}:from_schema", width=6)
    assert [tuple(v.shape) for v in model.trainable_variables] == [(784, 6), (6,), (6, 10), (10,)]


def test_names_do_not_depend_on_what_was_built_before(module):
    first = [v.path for v in build(f"{module}:plain").variables]
    assert first == [v.path for v in build(f"{module}:plain").variables]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_models_here:plain", "there is no module no_models_here: install it, or start from the folder that holds"),
        ("my_models.deeper:plain", "there is no module my_models.deeper"),
        ("broken_models:plain", "there is no module no_such_package: install no_such_package, which it imports"),
        ("failing_models:plain", r"importing failing_models fails with ZeroDivisionError \(division by zero\)"),
        (
            "my_models:plian",
            "my_models has no function plian, it has from_schema, layer, plain, two_outputs, wrong_shape",
        ),
        ("my_models:layer", "must return a keras.Model, not a Dense"),
        ("my_models:wrong_shape", r"the model gives \[7\] for a sample, but the task needs logits of shape \[10\]"),
        ("my_models:two_outputs", "must give one tensor of logits, not a list"),
    ],
)
def test_mistakes_are_explained_in_a_sentence(module, name, message):
    with pytest.raises(ValueError, match=rf"model\.name={name}.*{message}"):
        build(name)


def test_unknown_options_are_refused(module):
    with pytest.raises(
        ValueError, match=r"from_schema: .*'widht': .* \(schema, task, width\), set them in model\.options"
    ):
        build(f"{module}:from_schema", widht=3)


def test_inputs_that_the_model_cannot_take_are_refused(module):
    with pytest.raises(ValueError, match=r"cannot be called with the data's input 'carrier' \[\], 'month' \[\]"):
        build(f"{module}:plain", schema=COLUMNS)
