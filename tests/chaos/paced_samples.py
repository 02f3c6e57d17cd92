"""Samples that are read slowly, for trainings that must last long enough to be struck, until the file that FAST names
is there."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

READ_S = 0.25
NUM_TOKENS = 32

Read = Callable[[np.ndarray], dict[str, np.ndarray]]


def digits(split: str) -> tuple[int, Read]:
    """Images of digits, 8 by 8."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return _paced({"image": images.reshape(-1, 8, 8, 1).astype(np.float32) / 16, "label": labels.astype(np.int32)})


def tokens(split: str) -> tuple[int, Read]:
    """Sequences in which a token nearly always decides the next one."""
    random = np.random.default_rng(0)
    follower = random.permutation(NUM_TOKENS).astype(np.int32)
    rows = random.integers(0, NUM_TOKENS, (256, 17)).astype(np.int32)
    for t in range(1, rows.shape[1]):
        rows[:, t] = np.where(random.random(len(rows)) < 0.9, follower[rows[:, t - 1]], rows[:, t])
    return _paced({"tokens": rows})


def _paced(arrays: dict[str, np.ndarray]) -> tuple[int, Read]:
    fast = Path(os.environ.get("FAST", "/"))

    def read(index: np.ndarray) -> dict[str, np.ndarray]:
        if not fast.exists():
            time.sleep(READ_S)
        return {name: values[index] for name, values in arrays.items()}

    return len(next(iter(arrays.values()))), read
