"""Embeddings of which only the rows of a batch travel.

Before a step it is found which rows its slice looks up: the ids. The model is then called with these rows in place of
the whole table, so that the step's own gradient is that of the rows, as small as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf


def tables_of(model: keras.Model, is_large: Callable[[tf.Variable], bool]) -> dict[int, keras.layers.Embedding]:
    """The embeddings whose rows can travel alone, by the number of their table among the trainable variables.

    That are large ones, of Keras's own kind, whose table serves for nothing else: a table that is also multiplied, or
    whose size is a penalty, is needed as a whole.

    Args:
        model: Built; one without a description of its inputs has none.
        is_large: Whether a table is large enough.
    """
    number_of = {id(variable): number for number, variable in enumerate(model.trainable_variables)}
    found: dict[int, keras.layers.Embedding] = {}
    for layer in model._flatten_layers():
        if type(layer) is not keras.layers.Embedding or layer.lora_enabled or layer.quantization_mode is not None:
            continue
        table = layer._embeddings
        if id(table) in number_of and is_large(table._value):
            found[number_of[id(table)]] = layer
    return found if not found else _without_other_uses(model, found)


class NeededRows(NamedTuple):
    """The rows of a table that a slice looks up.

    Attributes:
        ids: int64 [R], each once.
        places: int32 [N], for each look-up of the slice in the model's order, where in `ids` each of its N rows is.
    """

    ids: tf.Tensor
    places: list[tf.Tensor]


class RowModel:
    """The model as the two halves of a step see it, with rows in place of some tables.

    Args:
        model: Built.
        tables: Of `tables_of`.
    """

    def __init__(self, model: keras.Model, tables: Mapping[int, keras.layers.Embedding]) -> None:
        self._model, self._tables = model, dict(tables)
        self._needed: dict[int, NeededRows] = {}

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The model's."""
        return self._model.trainable_variables

    def needed(
        self,
        dense: Mapping[int, tf.Tensor],
        non_trainable: list[tf.Tensor],
        inputs: Any,
        rising: Callable[[int], bool] = lambda number: False,
    ) -> dict[int, NeededRows]:
        """The rows that inputs need, by table.

        Args:
            dense: The trainable values that are no tables.
            non_trainable: All of them.
            inputs: Of the model.
            rising: Whether those of a table are wanted in rising order, which takes time.
        """
        seen: dict[int, list[tf.Tensor]] = {number: [] for number in self._tables}

        def note(number: int, ids: tf.Tensor) -> tf.Tensor:
            seen[number].append(_flat(ids))
            layer = self._tables[number]
            return tf.zeros([*_shape(ids), layer.output_dim], layer.compute_dtype)

        with _looking_up(self._tables, note):
            self._model.stateless_call(self._whole(dense), non_trainable, inputs, training=True)
        return {number: _each_once(ids, rising(number)) for number, ids in seen.items()}

    @contextlib.contextmanager
    def with_rows(self, needed: Mapping[int, NeededRows]) -> Iterator[None]:
        """Within it the trainable values of the tables are these rows."""
        self._needed = dict(needed)
        try:
            yield
        finally:
            self._needed = {}

    def stateless_call(self, trainable: list[tf.Tensor], non_trainable: list[tf.Tensor], *args: Any, **options: Any):
        """As the model's, within `with_rows`."""
        assert self._needed.keys() == self._tables.keys()
        expected = {number: iter(needed.places) for number, needed in self._needed.items()}

        def look_up(number: int, ids: tf.Tensor) -> tf.Tensor:
            known, wanted = self._needed[number].ids, _flat(ids)
            place = next(expected[number], None)
            if place is None or place.shape != wanted.shape or None in wanted.shape:
                # A part of the slice. Whatever is not among the known comes behind them.
                place = tf.unique(tf.concat([known, wanted], 0)).idx[tf.size(known) :]
            found = tf.gather(known, tf.minimum(place, tf.size(known) - 1))
            message = (
                f"{self._tables[number].path} looked up other rows than before the step, because its input depends on "
                "chance or on another embedding: set strategy.min_shard_bytes above the size of this table"
            )
            check = tf.debugging.assert_equal(found, wanted, message)
            with tf.control_dependencies([check] if check is not None else []):
                rows = tf.gather(trainable[number], place)
            return tf.cast(tf.reshape(rows, [*_shape(ids), rows.shape[-1]]), self._tables[number].compute_dtype)

        with _looking_up(self._tables, look_up):
            dense = {number: value for number, value in enumerate(trainable) if number not in self._tables}
            return self._model.stateless_call(self._whole(dense), non_trainable, *args, **options)

    def _whole(self, dense: Mapping[int, tf.Tensor]) -> list[tf.Tensor]:
        """A value for every trainable variable. Those of the tables are never computed, because nobody reads them."""
        variables = self._model.trainable_variables
        return [dense[i] if i in dense else tf.zeros(v.shape, v.dtype) for i, v in enumerate(variables)]


def _without_other_uses(
    model: keras.Model, tables: dict[int, keras.layers.Embedding]
) -> dict[int, keras.layers.Embedding]:
    """The tables of which the model reads nothing when their look-ups are taken away."""
    try:
        specs = tf.nest.map_structure(lambda x: tf.TensorSpec([2, *x.shape[1:]], x.dtype), model.input)
    except (AttributeError, ValueError):  # no functional model
        return {}
    unread: dict[int, keras.layers.Embedding] = {}

    def look(inputs: Any) -> tf.Tensor:
        values = [tf.zeros(v.shape, v.dtype) for v in model.trainable_variables]
        others = [tf.zeros(v.shape, v.dtype) for v in model.non_trainable_variables]

        def zeros(number: int, ids: tf.Tensor) -> tf.Tensor:
            return tf.zeros([*_shape(ids), tables[number].output_dim], tables[number].compute_dtype)

        with _looking_up(tables, zeros):
            model.stateless_call(values, others, inputs, training=True, return_losses=True)
        unread.update({number: layer for number, layer in tables.items() if not values[number].consumers()})
        return tf.constant(0)

    tf.function(look, autograph=False).get_concrete_function(specs)
    return unread


@contextlib.contextmanager
def _looking_up(
    tables: Mapping[int, keras.layers.Embedding], look_up: Callable[[int, tf.Tensor], tf.Tensor]
) -> Iterator[None]:
    """Within it the layers call `look_up` with their number and what they are called with."""
    for number, layer in tables.items():
        layer.call = lambda inputs, number=number: look_up(number, tf.convert_to_tensor(inputs))
    try:
        yield
    finally:
        for layer in tables.values():
            del layer.call


def _flat(ids: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.cast(ids, tf.int64), [-1])


def _each_once(seen: list[tf.Tensor], rising: bool) -> NeededRows:
    ids, places = tf.unique(tf.concat(seen, 0))
    if rising:
        ordered = tf.sort(ids)
        ids, places = ordered, tf.gather(tf.searchsorted(ordered, ids), places)
    sizes = [one.shape[0] for one in seen]
    # Of an unknown size, and so with unknown bounds in between: each is looked for when its turn comes.
    return NeededRows(ids, [] if None in sizes else tf.split(places, sizes))  # type: ignore[arg-type]


def _shape(values: tf.Tensor) -> list[Any]:
    dynamic = tf.shape(values)
    return [dynamic[i] if size is None else size for i, size in enumerate(values.shape)]
