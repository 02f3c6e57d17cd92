"""The trained model that artefacts are compared with, and the data that they are converted and measured with.

Shape legend: N held-out samples, R representative samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from delivery.serving_module import ServingModule
from trainer.checkpoint.store import CheckpointStore
from trainer.config.training import TrainingConfig
from trainer.data.registry import open_source
from trainer.data.source import Source
from trainer.run_folder import RunFolder, RunFolderError
from trainer.session import Session, build_session
from trainer.tasks.task import SAMPLE_WEIGHT, Task

NUM_HELD_OUT = 2000
"""Most held-out samples that an artefact answers, one at a time."""

NUM_REPRESENTATIVE = 256
"""Training samples that fix the ranges of activations."""

OUTPUT = "outputs"
_BATCH = 256


@dataclass(frozen=True)
class Quality:
    """The one figure by which a model is judged.

    Attributes:
        name: Of the metric: accuracy, subset_accuracy, rmse.
        value: Of the model.
        rises: Whether more is better.
    """

    name: str
    value: float
    rises: bool

    def share_of(self, other: Quality) -> float:
        """How much of the other's quality this one keeps: 1 is all of it.

        >>> Quality("accuracy", 0.75, True).share_of(Quality("accuracy", 1.0, True))
        0.75
        >>> Quality("rmse", 2.0, False).share_of(Quality("rmse", 1.0, False))
        0.5
        """
        better, worse = (self.value, other.value) if self.rises else (other.value, self.value)
        return better / worse if worse > 0 else float(better >= worse)


_QUALITIES = (("accuracy", True), ("subset_accuracy", True), ("rmse", False))


class Reference:
    """A run's trained model with its answers on held-out samples.

    Args:
        config: Of the run.
        folder: Of the run.

    Raises:
        RunFolderError: The run has no checkpoint.
        DataError: A sample cannot be read.

    Attributes:
        arrays: The model's weights by variable path; the averaged ones where the run keeps and exports them.
        samples: The model's features, [N, ...] each.
        outputs: Its answers to them, float32 [N, ...].
        step: Steps that it was trained.
    """

    def __init__(self, config: TrainingConfig, folder: RunFolder) -> None:
        session = _restored(config, folder)
        self.model: keras.Model = session.model
        self.task: Task = session.task
        self.schema = session.schema
        self.step = session.state.step
        ema = config.export.ema and config.train.ema is not None
        trainable = [variable.numpy() for variable in session.state.evaluation_weights(ema)]
        others = [variable._value.numpy() for variable in session.model.non_trainable_variables]
        self._weights = (trainable, others)
        variables = [*session.model.trainable_variables, *session.model.non_trainable_variables]
        self.arrays = {variable.path: value for variable, value in zip(variables, trainable + others, strict=True)}
        self._batch = _read(held_out_source(session), NUM_HELD_OUT)
        self.samples = self._features(self._batch)
        self.representative = self._features(_read(session.source, NUM_REPRESENTATIVE))
        self.outputs = self._answer(self.samples)
        self.quality = self.quality_of(self.outputs)

    @property
    def num_parameters(self) -> int:
        """Numbers in the model, without the seeds of its random layers."""
        return sum(value.size for path, value in self.arrays.items() if not path.endswith("seed_generator_state"))

    def quality_of(self, outputs: np.ndarray) -> Quality:
        """How good outputs [N, ...] for the held-out samples are, by the run's own task.

        Raises:
            ValueError: The task has no one figure to judge by.
        """
        sums = self.task.metric_sums(tf.constant(outputs), self._batch)
        metrics = self.task.metrics({name: value.numpy() for name, value in sums.items()})
        name, rises = next(((name, rises) for name, rises in _QUALITIES if name in metrics), (None, True))
        if name is None:
            known = ", ".join(name for name, _ in _QUALITIES)
            raise ValueError(
                f"a smaller model is judged by one of {known}, and the run's task reports {', '.join(metrics)}: "
                "export it as it is, with phalanx export RUN"
            )
        return Quality(name, metrics[name], rises)

    def save(self, folder: Path) -> None:
        """Writes what converting and measuring need: `model/` (a SavedModel that answers one sample at a time, from
        the model's own features), `samples.npz` and `representative.npz`.

        The weights are variables of the saved module. A SavedModel of the Keras model itself converts without any error
        to a file of a few kilobytes that holds no weights.
        """
        module = ServingModule(self.model, self._weights, ())

        def serve(**features: tf.Tensor) -> dict[str, tf.Tensor]:
            batch = features if len(features) > 1 else next(iter(features.values()))
            outputs = self.model.stateless_call(module.trainable, module.non_trainable, batch, training=False)[0]
            return {OUTPUT: tf.cast(outputs, tf.float32)}

        specs = {
            name: tf.TensorSpec((1, *feature.shape), feature.dtype, name)
            for name, feature in self.task.input_features.items()
        }
        function = tf.function(serve, autograph=False).get_concrete_function(**specs)
        tf.saved_model.save(module, str(folder / "model"), signatures={"serving_default": function})
        np.savez(folder / "samples.npz", **self.samples)  # type: ignore[arg-type]
        np.savez(folder / "representative.npz", **self.representative)  # type: ignore[arg-type]

    def describe(self) -> dict[str, Any]:
        """What whoever calls an artefact must know of its inputs and outputs."""
        inputs = {
            name: {
                "shape": [1, *feature.shape],
                "dtype": feature.dtype,
                **({"categories": [None, *feature.vocabulary]} if feature.vocabulary else {}),
            }
            for name, feature in self.task.input_features.items()
        }
        output = {"name": OUTPUT, "shape": [1, *self.outputs.shape[1:]], "task": type(self.task).__name__}
        return {"inputs": inputs, "output": output, "classes": self.schema.class_names}

    def _answer(self, samples: Mapping[str, np.ndarray]) -> np.ndarray:
        trainable, others = ([tf.constant(value) for value in values] for values in self._weights)
        total = len(next(iter(samples.values())))
        answers = []
        for start in range(0, total, _BATCH):
            part = {name: tf.constant(values[start : start + _BATCH]) for name, values in samples.items()}
            batch = part if len(part) > 1 else next(iter(part.values()))
            answers.append(self.model.stateless_call(trainable, others, batch, training=False)[0])
        return tf.cast(tf.concat(answers, 0), tf.float32).numpy()

    def _features(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        inputs = self.task.inputs(batch)
        named = inputs if isinstance(inputs, Mapping) else {next(iter(self.task.input_features)): inputs}
        return {name: np.asarray(values) for name, values in named.items()}


def held_out_source(session: Session) -> Source:
    """The split that the run is evaluated on."""
    return session.evaluator.source if session.evaluator else open_source(session.config.data, "held_out")


def _read(source: Source, most: int) -> dict[str, tf.Tensor]:
    """Samples from all over a source; those that reading left out are dropped."""
    total = source.schema.num_samples
    index = np.unique(np.linspace(0, total - 1, min(most, total)).astype(np.int64))
    batch = source.read(tf.constant(index))
    weight = batch.pop(SAMPLE_WEIGHT, None)
    return batch if weight is None else {name: values[weight > 0] for name, values in batch.items()}


def _restored(config: TrainingConfig, folder: RunFolder) -> Session:
    store = CheckpointStore(folder.checkpoints, config.checkpoint.keep)
    checkpoint = store.newest_verified(set_aside=False)
    if checkpoint is None:
        raise RunFolderError(f"{folder.path} has no checkpoint to shrink: train it first with phalanx train")
    session = build_session(config.for_one_process())
    session.state.restore(checkpoint.arrays)
    return session
