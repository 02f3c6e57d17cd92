"""A training whose weights count how often each sample was learned from, for runs whose workers come and go.

The model has a part of its own for counting: each sample is one column of its input, the gradient of the loss with
respect to that column's weight is the same for every occurrence, and plain gradient descent adds them up. The numbers
are powers of two, so the sums are exact in whatever order they are added, and what a failure undid is not counted.
"""

import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer.tasks.task import Task, sample_weight

NUM_SAMPLES, BATCH, RATE, COLUMN = 64, 16, 0.25, 64.0
# With this rate a column's weight grows by one whenever its sample is learned from.
assert RATE * COLUMN == BATCH

CONFIG = f"""\
model: {{name: "tests.launch.counted_samples:model"}}
task: {{name: "tests.launch.counted_samples:Counting"}}
data: {{name: "tests.launch.counted_samples:samples", batch_size: {BATCH}, target: y}}
optimizer: {{name: sgd, learning_rate: {RATE}, momentum: 0.0}}
evaluate: {{every: null}}
"""
# Until somebody stops it: then no step comes too late for what a test does, however slow the machine is.
ENDLESS = f"""\
{CONFIG}
train: {{steps: 1000000, log_every: 10, steps_per_loop: 5}}
checkpoint: {{every: 1000000st}}
observe: {{tensorboard: false}}
export: {{enabled: false}}
"""


def samples(split: str):
    """64 samples; each read takes a while, until the file that FAST names is there."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(NUM_SAMPLES, 6)).astype(np.float32)
    columns = np.eye(NUM_SAMPLES, dtype=np.float32) * COLUMN
    x, y = np.concatenate([numbers, columns], 1), np.tanh(numbers.sum(1))
    fast = Path(os.environ.get("FAST", "/"))

    def read(index: np.ndarray) -> dict[str, np.ndarray]:
        if not fast.exists():
            time.sleep(0.25)
        return {"x": x[index], "y": y[index]}

    return NUM_SAMPLES, read


def model(schema, task) -> keras.Model:
    """Predicts one number, and counts."""
    x = keras.Input((6 + NUM_SAMPLES,))
    hidden = keras.layers.Dense(8, activation="tanh", name="hidden")(x[:, :6])
    count = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="count")(x[:, 6:])
    answer = keras.layers.Dense(1, name="answer")(keras.layers.Dropout(0.1)(hidden))
    return keras.Model(x, keras.layers.Concatenate()([answer, count]))


class Counting(Task):
    """The squared error of the answer, and nothing for the count but its gradient."""

    output_shape = (2,)

    def loss(self, outputs, batch):
        answer, count = outputs[:, 0], outputs[:, 1]
        weights = sample_weight(batch, answer)
        return (tf.square(answer - batch["y"]) + (tf.stop_gradient(count) - count)) * weights, weights

    def metric_sums(self, outputs, batch):
        return {"answer": tf.reduce_sum(outputs[:, 0])[None]}

    def metrics(self, sums):
        return {"answer": float(sums["answer"][0])}

    def predictions(self, outputs):
        return {"values": outputs}
