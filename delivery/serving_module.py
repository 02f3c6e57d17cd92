"""The graph of a served model: weights of its own, preprocessing, named signatures. Needs no Keras once it is saved.

Shape legend: B batch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from delivery.serving_inputs import ServedInput, raw_inputs, tensor_input
from trainer.data.source import Schema
from trainer.tasks.classification import Classification
from trainer.tasks.language_modelling import LanguageModelling
from trainer.tasks.multi_label import MultiLabel
from trainer.tasks.regression import Regression
from trainer.tasks.segmentation import Segmentation
from trainer.tasks.task import Task
from trainer.tasks.verification import Verification

DEFAULT_SIGNATURE = "serving_default"
_SIGNATURES: tuple[tuple[type[Task], str], ...] = (
    (Classification, "classify"),
    (Regression, "regress"),
    (MultiLabel, "label"),
    (Segmentation, "segment"),
    (Verification, "embed"),
)


def signature_name(task: Task) -> str:
    """What the task's signature is called: classify, regress, label, segment, embed, else predict."""
    return next((name for kind, name in _SIGNATURES if isinstance(task, kind)), "predict")


class ServingModule(tf.Module):
    """What is saved beside the functions: weights as variables of its own, and look-up tables.

    A SavedModel of the Keras model itself would lose its variables silently (Keras 3 variables are not TensorFlow's),
    so the functions are traced over `stateless_call` with variables that belong to this module.

    Args:
        model: Built; gives the names of the variables.
        weights: Values of the model's trainable and of its other variables, in the model's order.
        tables: That the preprocessing uses.
    """

    def __init__(
        self,
        model: keras.Model,
        weights: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
        tables: Sequence[tf.lookup.StaticHashTable],
    ) -> None:
        super().__init__()
        self.trainable = [
            tf.Variable(tf.constant(value), name=_name(variable))
            for value, variable in zip(weights[0], model.trainable_variables, strict=True)
        ]
        self.non_trainable = [
            tf.Variable(tf.constant(value), trainable=False, name=_name(variable))
            for value, variable in zip(weights[1], model.non_trainable_variables, strict=True)
        ]
        self.tables = list(tables)


class ServedModel:
    """A model as it is served: its module, and its signatures with what they take.

    Args:
        model: Built; only its computation is used, and not after tracing.
        task: Names the inputs and turns outputs into predictions.
        schema: Of the training data; gives the names of the classes.
        weights: Values of the model's trainable and of its other variables, in the model's order.
        samples: Real values of the model's features, [B, ...] each.

    Attributes:
        module: What holds the variables.
        functions: The traced functions by signature name.
        inputs_of: What each signature takes, by signature name.
        class_names: Of a classification, where the schema knows them.
    """

    def __init__(
        self,
        model: keras.Model,
        task: Task,
        schema: Schema,
        weights: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
        samples: Mapping[str, np.ndarray],
    ) -> None:
        raw = raw_inputs(task.input_features, samples, tokens=isinstance(task, LanguageModelling))
        plain = {name: tensor_input(name, feature) for name, feature in task.input_features.items()}
        tables = [table for served in raw.values() for table in served.resources]
        self.module = ServingModule(model, weights, tables)
        self.class_names = schema.class_names if isinstance(task, Classification) else None
        name = signature_name(task)
        function = self._trace(model, task, raw, self.class_names)
        self.inputs_of = {DEFAULT_SIGNATURE: raw, name: raw}
        self.functions = {DEFAULT_SIGNATURE: function, name: function}
        if any(raw[key].spec != plain[key].spec for key in raw):
            self.inputs_of[f"{name}_tensors"] = plain
            self.functions[f"{name}_tensors"] = self._trace(model, task, plain, None)

    def _trace(
        self, model: keras.Model, task: Task, inputs: Mapping[str, ServedInput], class_names: tuple[str, ...] | None
    ) -> Any:
        def serve(**sent: tf.Tensor) -> dict[str, tf.Tensor]:
            features = {name: served.decode(sent[name]) for name, served in inputs.items()}
            batch = features if len(features) > 1 else next(iter(features.values()))
            outputs = model.stateless_call(self.module.trainable, self.module.non_trainable, batch, training=False)[0]
            answers = answers_of(task, outputs)
            if class_names:
                answers["labels"] = tf.gather(tf.constant(class_names), answers["classes"])
            if isinstance(task, LanguageModelling):
                length = tf.shape(next(iter(sent.values())))[1]
                answers = {name: values[:, :length] for name, values in answers.items()}
            return answers

        specs = {name: served.spec for name, served in inputs.items()}
        return tf.function(serve, autograph=False).get_concrete_function(**specs)


def answers_of(task: Task, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """The task's predictions by name, and the logits that they come from; [B, ...] each.

    Not the logits of every pixel: they double what travels, and say what the probabilities say.
    """
    answers = task.predictions(outputs)
    if isinstance(task, Classification | MultiLabel):
        answers["logits"] = tf.cast(outputs, tf.float32)
    return answers


def _name(variable: keras.Variable) -> str:
    """The variable's path as TensorFlow takes names; a layer's name may begin with an underscore, TensorFlow's not."""
    return "model/" + re.sub(r"[^A-Za-z0-9_./-]", "_", variable.path)
