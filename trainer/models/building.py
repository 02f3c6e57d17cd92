"""The global state that Keras builds layers from, set for one model and put back after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
from keras.src.backend.common import global_state

_LAYER_COUNTS = "object_name_uids"


@contextlib.contextmanager
def building(precision: str, seed: int | None) -> Iterator[None]:
    """Within it, new layers compute in `precision`, draw their weights from `seed`, and have names of their own.

    Keras takes all three from global state. The precision and the names are put back at the end: a second model, or a
    look-up layer of an export, must not inherit the precision; and a model must have the same variable names in every
    process, whatever was built there before, because checkpoints are read by name.

    Args:
        precision: "float32", "mixed_bfloat16" or "mixed_float16". Weights are float32 in each.
        seed: In [0, 2**32); None goes on with the random numbers as they are.
    """
    policy, counts = keras.config.dtype_policy(), global_state.get_global_attribute(_LAYER_COUNTS)
    keras.config.set_dtype_policy(precision)
    global_state.set_global_attribute(_LAYER_COUNTS, None)
    if seed is not None:
        keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        global_state.set_global_attribute(_LAYER_COUNTS, counts)
