"""Which samples are held out when only a fraction is asked for: chosen by a hash of their name.

Unlike a cut at the end, the choice does not follow the order of the files (which is often the order of the classes);
unlike a random draw, a sample keeps its side when others are added.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from trainer.data.checks import DataError

Split = Literal["train", "held_out"]


def draw_names(names: Sequence[str]) -> np.ndarray:
    """Draws a number in [0, 1) for each name, float64 [len(names)]."""
    drawn = [int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") for name in names]
    return np.asarray(drawn, np.uint64) / 2.0**64


def draw_records(name: str, count: int) -> np.ndarray:
    """Draws a number in [0, 1) for each of `count` records of the file `name`, float64 [count].

    The mixing function is SplitMix64 (Steele, Lea and Flood 2014).
    """
    start = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    with np.errstate(over="ignore"):
        z = np.uint64(start) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (z ^ (z >> np.uint64(31))) / 2.0**64


def choose_split(file: object, drawn: np.ndarray, fraction: float, split: Split) -> np.ndarray:
    """Gives the positions of a split, int64, in order. Neither split is empty.

    Args:
        file: What the samples come from, for the message.
        drawn: A number in [0, 1) for each sample.
        fraction: How much to hold out.
        split: The split to give.

    Raises:
        DataError: There are fewer than two samples.
    """
    if len(drawn) < 2:
        rule = f"a part of {len(drawn)} sample(s) cannot be held out"
        raise DataError(file, "", rule, "add samples, or name held-out data of its own")
    held_out = drawn < fraction
    held_out[np.argmin(drawn)] = True
    held_out[np.argmax(drawn)] = False
    return np.flatnonzero(held_out if split == "held_out" else ~held_out)
