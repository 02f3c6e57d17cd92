"""The same training as users of Horovod's elastic mode write it: one worker, started by `horovodrun`.

horovodrun --gloo -np 2 --min-np 1 --host-discovery-script FILE python -m benchmarks.horovod_elastic_peer MODEL NOTES

Its state is committed to memory, as Horovod's documentation does it, as often as the others save.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from benchmarks.fault_models import BATCH, NUM_WORKERS, SAVE_EVERY, arrays, keras_model
from benchmarks.mirrored_loop import Notes


def main() -> None:
    """Trains until it is ended."""
    model_name, folder = sys.argv[1:]
    # By the place that the launcher gave it: ranks are dealt anew after a death.
    note = Notes(folder, f"worker-{os.environ['HOROVOD_HOSTNAME']}")
    note("started")
    import horovod.tensorflow as hvd
    import keras
    import tensorflow as tf

    note("imported")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    hvd.init()
    model = keras_model(model_name)
    optimizer = keras.optimizers.Adam(0.001)
    optimizer.build(model.trainable_variables)
    inputs, targets = arrays(model_name)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def take_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        # Without names of ours: by its own, Horovod tells an error of a peer's death from others.
        gradients = [hvd.allreduce(gradient) for gradient in gradients]
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    @hvd.elastic.run
    def train(state: Any) -> None:
        note("restored", step=state.step, size=hvd.size())
        random = np.random.default_rng(hvd.rank())
        while True:
            chosen = random.integers(0, len(inputs), BATCH // NUM_WORKERS)
            float(take_step(inputs[chosen], targets[chosen]))
            state.step += 1
            note("step", step=state.step, size=hvd.size())
            if state.step % SAVE_EVERY[model_name] == 0:
                began = time.time()
                state.commit()
                note("saved", step=state.step, seconds=time.time() - began)

    # Horovod does not know Keras 3's variables: what is beneath them is TensorFlow's.
    variables = [variable.value for variable in (*model.variables, *optimizer.variables)]
    train(hvd.elastic.TensorFlowState(variables, step=0))


if __name__ == "__main__":
    main()
