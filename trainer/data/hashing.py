"""Categories without a vocabulary: a name's number is a hash of it, the same in every process and in an exported model.

Shape legend: N names.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf


def hashed(names: tf.Tensor, buckets: int) -> tf.Tensor:
    """The number of each name, int64 of the shape of `names`: 0 for the empty one, else from 1 to `buckets`.

    TensorFlow's fingerprint (FarmHash64) depends on the bytes of a name alone, and is promised never to change.
    """
    return tf.where(tf.equal(names, ""), tf.constant(0, tf.int64), tf.strings.to_hash_bucket_fast(names, buckets) + 1)


def names_of_buckets(numbers: Iterable[int], buckets: int) -> dict[int, str]:
    """A made-up name for each of these numbers, for where no real one is known.

    Names are tried in turn, in blocks: `buckets` names meet all but a share of 1/e of the numbers.
    """
    wanted, found, start = set(numbers), {0: ""}, 0
    while missing := wanted - found.keys():
        tried = [f"name {i}" for i in range(start, start + max(1024, buckets))]
        places = hashed(tf.constant(tried), buckets).numpy()
        chosen = np.flatnonzero(np.isin(places, list(missing)))
        found |= {int(places[i]): tried[i] for i in chosen[::-1]}
        start += len(tried)
    return {number: found[number] for number in wanted}
