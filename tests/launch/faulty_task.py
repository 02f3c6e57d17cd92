"""Classification whose code misbehaves in rank 1 once it is asked to: by a file that names what to do.

The numbers are those of the task that it is made of, so an undisturbed run of that one is what to compare with.
"""

import os
import threading
import time
from pathlib import Path

import tensorflow as tf

from trainer.config.task import ClassificationTask
from trainer.tasks.classification import Classification

AT_CALL = 250  # after the first evaluation


class Faulty(Classification):
    """Does what the file that FAULT names says. `hang`: traces slowly, and at its 250th batch waits for ever, once;
    whoever comes after it is slow. `raise`: raises an exception there, each time. `slow`: is slow for each batch.
    `build`: cannot be made.
    """

    def __init__(self, schema):
        super().__init__(ClassificationTask(), schema)
        self._calls = 0
        self._slow = _fault() == "slow"
        if _fault() == "build":
            raise RuntimeError("the task is broken for now")

    def loss(self, outputs, batch):
        context = tf.distribute.get_replica_context()
        if context is None or tf.get_static_value(context.replica_id_in_sync_group) != 1:
            return super().loss(outputs, batch)
        if _fault() == "hang":
            time.sleep(4.0)  # a compilation, and an evaluation, that take longer than a step may
        called = tf.numpy_function(self._called, [], tf.int64)
        with tf.control_dependencies([called]):
            return super().loss(tf.identity(outputs), batch)

    def _called(self):
        self._calls += 1
        if self._slow:
            time.sleep(0.01)
        if self._calls == AT_CALL and _fault() == "raise":
            raise KeyError("a label that nobody knows")
        if self._calls == AT_CALL and _fault() == "hang":
            Path(os.environ["FAULT"]).write_text("slow")
            threading.Event().wait()
        return self._calls


def _fault() -> str:
    path = Path(os.environ.get("FAULT", "/nowhere"))
    return path.read_text() if path.exists() else ""
