"""Classification whose steps take as long as a device would, without work for the processor.

Many processes that share the cores of one machine then train beside each other as on machines of their own. The numbers
are those of the task that it is made of: a run without a pace has the curve that a paced one must have.
"""

import os
import time

import numpy as np
import tensorflow as tf

from trainer.config.task import ClassificationTask
from trainer.tasks.classification import Classification


class Paced(Classification):
    """Waits PACE_S seconds for each part of a batch, if that is set."""

    def __init__(self, schema):
        super().__init__(ClassificationTask(), schema)

    def loss(self, outputs, batch):
        pace_s = float(os.environ.get("PACE_S", "0"))

        def wait() -> np.int64:
            time.sleep(pace_s)
            return np.int64(0)

        with tf.control_dependencies([tf.numpy_function(wait, [], tf.int64)]):
            return super().loss(tf.identity(outputs), batch)
