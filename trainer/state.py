"""The training state: every variable that a resumed run needs, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.step import loss_scale
from trainer.step.state_tensors import StateTensors

# Before the names of a second state that is saved with the first: the one that a roll-back returns to.
ROLLBACK = "rollback/"


class TrainState:
    """Owns the variables of a training, and reads and writes them as `StateTensors`.

    Names are `model/PATH`, `optimizer/PATH`, `ema/PATH`, `outer/PATH`, `step`, `loss_scale/...` and `window`, with
    Keras's variable paths, so that a checkpoint means the same under every strategy.

    Args:
        model: Built.
        optimizer: Functional and built on the model's trainable variables.
        ema: Whether an averaged copy of the weights is kept.
        scaled: Whether the loss is scaled (float16).
        window_size: Length of the window vector.
        outer: Whether the trainable weights have the momentum of an outer optimizer beside the optimizer's own.

    Attributes:
        absent: Names of variables that other workers hold for this one.

    Raises:
        ValueError: Two variables have one path.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        ema: bool,
        scaled: bool,
        window_size: int,
        outer: bool = False,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self._step = tf.Variable(tf.constant(0, tf.int64), trainable=False, name="step")
        self._window = tf.Variable(tf.zeros([window_size]), trainable=False, name="window")
        self._trainable = [_inner(v) for v in model.trainable_variables]
        self._non_trainable = [_inner(v) for v in model.non_trainable_variables]
        self._optimizer = [_inner(v) for v in optimizer.variables]
        self._ema = [tf.Variable(v.read_value(), trainable=False, name="ema") for v in self._trainable if ema]
        self._outer = [tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False) for v in self._trainable if outer]
        self._loss_scale = (
            [
                tf.Variable(tf.constant(loss_scale.INITIAL), trainable=False, name="loss_scale"),
                tf.Variable(tf.constant(0), trainable=False, name="loss_scale_steps"),
            ]
            if scaled
            else []
        )
        self._home = self.variables = self._named()
        self.absent: frozenset[str] = frozenset()

    def _named(self) -> dict[str, tf.Variable]:
        weights = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        pairs = [(f"model/{v.path}", _inner(v)) for v in weights]
        pairs += [(f"optimizer/{v.path}", _inner(v)) for v in self.optimizer.variables]
        pairs += [(f"ema/{v.path}", e) for v, e in zip(self.model.trainable_variables, self._ema, strict=False)]
        pairs += [(f"outer/{v.path}", o) for v, o in zip(self.model.trainable_variables, self._outer, strict=False)]
        pairs += zip(("loss_scale/scale", "loss_scale/steps"), self._loss_scale, strict=False)
        pairs += [("step", self._step), ("window", self._window)]
        named = dict(pairs)
        if len(named) < len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(
                f"two variables of the model are both called {twice[0]}: give each layer a name of its own"
            )
        return named

    def move(self, place: Callable[[str, tf.Variable], tf.Variable]) -> None:
        """Lets the state live elsewhere from now on.

        Args:
            place: Gives, for each name and variable, what takes its place, with its value.
        """
        self.variables = {name: place(name, variable) for name, variable in self._home.items()}
        moved = {id(variable): self.variables[name] for name, variable in self._home.items()}

        def new(variables: list[tf.Variable]) -> list[tf.Variable]:
            return [moved[id(variable)] for variable in variables]

        [self._step, self._window] = new([self._step, self._window])
        self._trainable, self._non_trainable = new(self._trainable), new(self._non_trainable)
        self._optimizer, self._ema = new(self._optimizer), new(self._ema)
        self._loss_scale = new(self._loss_scale)

    def copy_home(self) -> None:
        """Brings a state that has moved into the variables that the model was built with, for whoever calls the model
        itself."""
        for name, variable in self._home.items():
            if name.startswith("model/") and variable is not self.variables[name]:
                variable.assign(self.variables[name].read_value())

    @property
    def placed(self) -> StateTensors:
        """The variables themselves."""
        return self._flat()

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self._step.numpy())

    def _flat(self) -> StateTensors:
        return StateTensors(
            self._step,
            tuple(self._trainable),
            tuple(self._non_trainable),
            tuple(self._optimizer),
            tuple(self._ema),
            tuple(self._loss_scale),
            self._window,
        )

    def read(self, component: Callable[[tf.Variable], tf.Variable] = lambda variable: variable) -> StateTensors:
        """The current values; `component` picks a replica's own copy of a distributed variable."""
        return tf.nest.map_structure(lambda v: component(v).read_value(), self._flat())

    def write(
        self, values: StateTensors, component: Callable[[tf.Variable], tf.Variable] = lambda variable: variable
    ) -> None:
        """Assigns what a step computed; None: it has changed the variable itself."""
        for variable, value in zip(tf.nest.flatten(self._flat()), tf.nest.flatten(values), strict=True):
            if value is not None:
                component(variable).assign(value)

    def evaluation_weights(self, ema: bool) -> list[tf.Variable]:
        """The trainable variables to evaluate or export with: the averaged ones where they exist and are asked for."""
        return self._ema if ema and self._ema else self._trainable

    def shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and numpy type name of every variable."""
        return {  # type: ignore[return-value]
            name: (tuple(v.shape.as_list()), v.dtype.as_numpy_dtype().dtype.name) for name, v in self.variables.items()
        }

    def copy_to(self, buffers: Mapping[str, np.ndarray]) -> None:
        """Copies every variable that is here into the array of its name."""
        for name, variable in self.variables.items():
            if name in self.absent:
                continue
            np.copyto(buffers[name], variable.numpy())

    def tensors(self) -> dict[str, tf.Tensor]:
        """The current values by name, without a copy: no step changes a tensor that somebody holds.

        XLA changes a variable in place only where nobody else has its value.
        """
        return {name: variable.read_value() for name, variable in self.variables.items()}

    def start_from(self, weights: Mapping[str, np.ndarray]) -> None:
        """Sets some of the model's variables, by path without prefix, before the first step."""
        for path, values in weights.items():
            self.variables[f"model/{path}"].assign(values)
            if f"ema/{path}" in self.variables:
                self.variables[f"ema/{path}"].assign(values)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Sets every variable; what a roll-back would return to is left out.

        Raises:
            ValueError: A variable is missing, or an array has another shape or no variable.
        """
        arrays = {name: array for name, array in arrays.items() if not name.startswith(ROLLBACK)}
        missing, unknown = sorted(self.variables.keys() - arrays.keys()), sorted(arrays.keys() - self.variables.keys())
        if missing or unknown:
            wrong = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which the config's model does not"
            raise ValueError(
                f"the checkpoint {wrong} ({len(missing)} missing, {len(unknown)} unknown): resume with the config that "
                "wrote it, or start a new run with warm_start.path"
            )
        for name, variable in self.variables.items():
            if tuple(variable.shape) != arrays[name].shape:
                raise ValueError(
                    f"{name} has shape {arrays[name].shape} in the checkpoint and {tuple(variable.shape)} in the "
                    "config's model: resume with the config that wrote it, or start a new run with warm_start.path"
                )
        for name, variable in self.variables.items():
            variable.assign(arrays[name])


def _inner(variable: keras.Variable) -> tf.Variable:
    return variable._value  # `value` may be a cast copy inside an autocast scope
