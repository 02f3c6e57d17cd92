"""Which weights decay."""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras


def decays(path: str, no_decay: Sequence[str]) -> bool:
    """Whether the weight at this path decays.

    Args:
        path: The variable's path, "block_0_attention_norm/gamma".
        no_decay: Regular expressions, each of the whole path or of one part of it between slashes.

    >>> decays("hidden_0/kernel", ["bias", "gamma"]), decays("hidden_0/bias", ["bias", "gamma"])
    (True, False)
    >>> decays("token_embedding/embeddings", [".*embedding"])
    False
    """
    parts = [path, *path.split("/")]
    return not any(re.fullmatch(pattern, part) for pattern in no_decay for part in parts)


def mask_weight_decay(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable], no_decay: Sequence[str]
) -> None:
    """Exempts the variables that `no_decay` names. Before the optimizer is built.

    By variable, because Keras's own patterns see only the last part of a path, and any part of that.
    """
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if not decays(v.path, no_decay)])
