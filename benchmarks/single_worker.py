"""One contender of benchmarks/single.py in a process of its own; benchmarks/single_turns.py says what it answers.

python -m benchmarks.single_worker MODEL CONTENDER RUN_DIR

The first answer has `loss`, the mean over some training samples after the warm-up. A turn has `samples_per_s`; Phalanx
adds `data_wait`, the share of all its turns so far that it waited for data. With checkpoints it saves in every other
turn, and `checkpoints` says in which.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from benchmarks.single_models import (
    STEPS_PER_CALL,
    STEPS_PER_EPOCH,
    WARM_UP_STEPS,
    arrays,
    batch_size,
    keras_model,
    tf_keras_model,
    training_config,
)
from benchmarks.single_turns import Figures, Turns

_LOSS_SAMPLES = 512


def main() -> None:
    """Builds the contender, then takes turns until the input ends."""
    model, contender, run_dir = sys.argv[1:]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    legacy = contender.startswith("tf-keras")
    os.environ["TF_USE_LEGACY_KERAS"] = "1" if legacy else "0"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a training prints goes to the log, as in a run that nobody watches
    if contender.startswith("phalanx"):
        _phalanx(model, Path(run_dir) / contender, "50st" if "checkpoint" in contender else None, answers)
        return
    jit = ", jit" in contender
    if contender.startswith("loop"):
        _hand_written(model, jit, answers)
    elif contender == "fit as written":
        _plain_fit(model, answers)
    else:
        _best_fit(model, jit, STEPS_PER_CALL[model] if "many a call" in contender else 1, legacy, answers)


def _turns(model: str, network: Any, answers: TextIO) -> Turns:
    return Turns(batch_size(model), WARM_UP_STEPS[model], _loss_figure(model, network), sys.stdin, answers)


def _loss_figure(model: str, network: Any) -> Callable[[], Figures]:
    """Shows that all train the same: the same samples, the same formula, dropout off."""
    import numpy as np

    inputs, targets = (array[:_LOSS_SAMPLES] for array in arrays(model))

    def measure() -> Figures:
        logits = np.asarray(network(inputs, training=False), np.float64)
        log_sum = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
        return {"loss": float((log_sum - np.take_along_axis(logits, targets[..., None], -1)[..., 0]).mean())}

    return measure


def _phalanx(model: str, folder: Path, checkpoint_every: str | None, answers: TextIO) -> None:
    """The whole real path: loop, recorder, checkpoints. A turn begins and ends at a boundary of the loop."""
    from trainer.due import Due
    from trainer.loop import Loop
    from trainer.observe.metrics_log import read_metrics
    from trainer.recorder import Recorder
    from trainer.run_folder import RunFolder
    from trainer.saving import Saver
    from trainer.session import build_session
    from trainer.stop_request import StopRequest

    config = training_config(model, str(folder.parent), checkpoint_every)
    run = RunFolder(folder)
    run.create()
    session = build_session(config)
    recorder = Recorder(run, config.observe)
    worked_s = 0.0

    def waited_s() -> float:
        """Since the start. A logged share refers to a window, whose length follows from its speed."""
        total_s, examples = 0.0, 0
        for line in read_metrics(run.metrics):
            total_s += line["data_wait"] * (line["examples"] - examples) / line["examples_per_s"]
            examples = line["examples"]
        return total_s

    def warmed_up() -> Figures:
        nonlocal waited_before_s
        waited_before_s = waited_s()
        return loss_figure()

    def end(seconds: float) -> Figures:
        # Over all turns: the window of a logged step may begin in one and end in another.
        nonlocal worked_s
        worked_s += seconds
        figures = {"data_wait": (waited_s() - waited_before_s) / worked_s, "checkpoints": saver.due is often}
        if saver.due is never and saver._writer:
            # The limit on the overhead refers to time in which the run saves: else a turn with checkpoints would have
            # twice as many as a run.
            saver._writer._not_before += seconds
        saver.due = never if saver.due is often else often
        return figures

    loss_figure, waited_before_s = _loss_figure(model, session.model), 0.0
    turns = Turns(batch_size(model), WARM_UP_STEPS[model], warmed_up, sys.stdin, answers, end)

    class EndOfTurns(StopRequest):
        """Read by the loop at every boundary: there a turn ends, and the next one is waited for."""

        def __bool__(self) -> bool:
            return not turns.boundary(session.state.step)

    saver = Saver(session, run, recorder)
    often, never = saver.due, Due(None, session.order.steps_per_epoch)
    recorder.begin(session.total_steps, None)
    Loop(session, recorder, saver, EndOfTurns()).run()
    saver.close()
    recorder.close()


def _compiled(keras: Any, network: Any, **options: Any) -> Any:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], **options)
    return network


def _turn_callback(keras: Any, turns: Turns, steps_per_epoch: int) -> Any:
    """A turn of `fit` ends with an epoch; nothing is called after a batch, which would cost time."""

    class EndOfTurns(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if not turns.boundary((epoch + 1) * steps_per_epoch):
                self.model.stop_training = True

    return EndOfTurns()


def _plain_fit(model: str, answers: TextIO) -> None:
    """`fit` as users write it: arrays and a batch size."""
    import keras

    network, (x, y) = _compiled(keras, keras_model(model)), arrays(model)
    callback = _turn_callback(keras, _turns(model, network, answers), len(x) // batch_size(model))
    network.fit(x, y, batch_size=batch_size(model), epochs=10**9, verbose=0, callbacks=[callback])


def _dataset(model: str) -> Any:
    import tensorflow as tf

    x, y = arrays(model)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).cache().shuffle(len(x)).repeat()
    return dataset.batch(batch_size(model), drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _best_fit(model: str, jit: bool, steps_per_call: int, legacy: bool, answers: TextIO) -> None:
    """`fit` with what makes it fast: a prefetched dataset, many steps a call or one, compiled or not."""
    if legacy:
        import tf_keras as keras

        network = tf_keras_model(model)
    else:
        import keras

        network = keras_model(model)
    network = _compiled(keras, network, jit_compile=jit, steps_per_execution=steps_per_call)
    dataset = _dataset(model)
    # A `fit` of its own, so that the warm-up is as long for all; the first epoch of the next one, which opens the data
    # again, is no turn either.
    network.fit(dataset, steps_per_epoch=WARM_UP_STEPS[model], epochs=1, verbose=0)
    figures = _loss_figure(model, network)()
    steps = STEPS_PER_EPOCH[model]
    turns = Turns(batch_size(model), steps, lambda: figures, sys.stdin, answers)
    callback = _turn_callback(keras, turns, steps)
    network.fit(dataset, steps_per_epoch=steps, epochs=10**9, verbose=0, callbacks=[callback])


def _hand_written(model: str, jit: bool, answers: TextIO) -> None:
    """The shortest loop that a tutorial would write, with the loss and the accuracy that the others keep as well."""
    import keras
    import tensorflow as tf

    network, optimizer = keras_model(model), keras.optimizers.Adam(1e-3)
    loss_of: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer.build(network.trainable_variables)
    batches = iter(_dataset(model))

    @tf.function(jit_compile=jit)
    def step(x, y):
        with tf.GradientTape() as tape:
            outputs = network(x, training=True)
            loss = loss_of(y, outputs)
        gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
        optimizer.apply(gradients, network.trainable_variables)
        is_hit = tf.equal(tf.argmax(outputs, -1, output_type=y.dtype), y)
        return loss, tf.reduce_mean(tf.cast(is_hit, tf.float32))

    steps = STEPS_PER_CALL[model]

    @tf.function
    def loop(batches):
        loss = accuracy = tf.constant(0.0)
        for _ in tf.range(steps):
            batch_loss, batch_accuracy = step(*next(batches))
            loss, accuracy = loss + batch_loss, accuracy + batch_accuracy
        return loss / steps, accuracy / steps

    turns = _turns(model, network, answers)
    done = 0
    while turns.boundary(done):
        loop(batches)
        done += steps


if __name__ == "__main__":
    main()
    # TensorFlow may wait for ever for its input threads, whose data set has no end.
    os._exit(0)
