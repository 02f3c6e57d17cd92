"""A model of the user's own."""

from __future__ import annotations

import keras

from trainer.config.model import CustomModel
from trainer.data.source import Schema
from trainer.importing import call_with, import_function
from trainer.tasks.task import Task


def custom_model(config: CustomModel, schema: Schema, task: Task) -> keras.Model:
    """Calls the user's function with its options, and with `schema` and `task` where it has such parameters.

    A model that is not built yet is built by calling it once on unknown inputs.

    Raises:
        ValueError: The function cannot be imported or called, what it returns is not a `keras.Model`, or the model does
            not take the data's inputs or give the outputs that the task needs.
    """
    function = import_function(config.name, "model.name")
    model = call_with(function, config.name, "model.name", {"schema": schema, "task": task}, config.options)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"model.name={config.name} must return a keras.Model, not {_kind(model)}: return the model that it builds"
        )
    inputs = {
        name: keras.KerasTensor((None, *feature.shape), feature.dtype, name=name)
        for name, feature in task.input_features.items()
    }
    try:
        outputs = model(inputs if len(inputs) > 1 else next(iter(inputs.values())))
    except Exception as error:
        shapes = ", ".join(f"{name!r} {list(feature.shape)}" for name, feature in task.input_features.items())
        raise ValueError(
            f"model.name={config.name}: the model cannot be called with the data's input {shapes} "
            f"({_first_line(error)}): make it take a batch of that shape"
        ) from error
    if not hasattr(outputs, "shape"):
        raise ValueError(
            f"model.name={config.name}: the model must give one tensor of logits, not {_kind(outputs)}: drop the others"
        )
    if tuple(outputs.shape[1:]) != task.output_shape:
        raise ValueError(
            f"model.name={config.name}: the model gives {list(outputs.shape[1:])} for a sample, but the task needs "
            f"logits of shape {list(task.output_shape)}: change its last layer"
        )
    return model


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
