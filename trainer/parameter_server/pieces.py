"""A placed state as the update sees it: a flat list of pieces, each a weight of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import keras
import tensorflow as tf

from trainer.step.build import Step
from trainer.step.state_tensors import StateTensors


@dataclass(frozen=True)
class PieceOptimizer:
    """An update rule whose variables are pieces.

    Attributes:
        rule: Functional and built.
        trainable_variables: What it is built on, by which it tells the pieces apart.
    """

    rule: keras.optimizers.Optimizer
    trainable_variables: list[keras.Variable]


def pieces_of(step: Step, placed: StateTensors) -> tuple[StateTensors, PieceOptimizer | None]:
    """The pieces of a state as the update sees them, each a variable; and the update rule built on them, where they are
    not the model's variables as they are."""
    whole = tf.nest.map_structure(lambda variable: variable.pieces[0], placed)
    if all(len(weight.pieces) == 1 for weight in placed.trainable):
        return whole, None
    variables = []
    for variable, weight in zip(step.apply.model.trainable_variables, placed.trainable, strict=True):
        for piece in weight.pieces:
            one = keras.Variable("zeros", piece.shape, piece.dtype.name, name="piece")
            one._path = variable.path  # by which the rule names its slots, and knows what does not decay
            variables.append(one)
    rule = step.new_optimizer(variables)
    by_path = {v.path: p for v, p in zip(step.apply.optimizer.variables, placed.optimizer, strict=True)}
    seen: Counter[str] = Counter()
    slots = []
    for slot in rule.variables:
        slots.append(by_path[slot.path].pieces[seen[slot.path]])
        seen[slot.path] += 1
    for one in [*variables, *rule.variables]:
        one._value = None  # only its name and shape are used, and the memory of a state is much
    flat = whole._replace(
        trainable=tuple(piece for weight in placed.trainable for piece in weight.pieces),
        optimizer=tuple(slots),
        ema=tuple(piece for average in placed.ema for piece in average.pieces),
    )
    return flat, PieceOptimizer(rule, variables)
