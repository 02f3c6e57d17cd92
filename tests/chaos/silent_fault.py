"""The counting task of a machine that computes wrongly: the process whose id the file WRONG holds."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.launch.counted_samples import Counting


class Wrong(Counting):
    """Its loss, and with it every gradient, is a millionth too large there."""

    def loss(self, outputs, batch):
        losses, weights = super().loss(outputs, batch)
        factor = tf.ensure_shape(tf.numpy_function(_factor, [], tf.float32), [])
        return losses * factor, weights


def _factor():
    path = Path(os.environ.get("WRONG", "/nowhere"))
    return np.float32(1.000001 if path.exists() and path.read_text() == str(os.getpid()) else 1.0)
