"""One contender of benchmarks/single.py in a process of its own: takes the steps that a line of input asks for.

python -m benchmarks.single_worker MODEL CONTENDER RUN_DIR

An answer is a JSON line with `samples_per_s` of the turn; Phalanx adds `data_wait`. The process ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.single_models import STEPS_PER_CALL, arrays, batch_size, keras_model, tf_keras_model, training_config

Turn = Callable[[int], dict[str, float]]


def main() -> None:
    """Builds the contender, then takes turns."""
    model, contender, run_dir = sys.argv[1:]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_USE_LEGACY_KERAS"] = "1" if contender.startswith("tf-keras") else "0"
    if contender.startswith("phalanx"):
        _phalanx(model, run_dir, "50st" if "checkpoint" in contender else None)
        return
    jit = contender.endswith("jit")
    if contender.startswith("loop"):
        turn = _hand_written(model, jit)
    elif contender == "fit as written":
        turn = _plain_fit(model)
    else:
        turn = _best_fit(model, jit, legacy=contender.startswith("tf-keras"))
    while steps := _next_turn():
        _answer(turn(steps))


def _next_turn() -> int:
    line = sys.stdin.readline()
    return int(line) if line else 0


def _answer(figures: dict[str, float]) -> None:
    print("answer " + json.dumps(figures), flush=True)


def _phalanx(model: str, run_dir: str, checkpoint_every: str | None) -> None:
    """The whole real path: loop, recorder, checkpoints. A turn begins and ends at a boundary of the loop."""
    from trainer.loop import Loop
    from trainer.observe.metrics_log import read_metrics
    from trainer.recorder import Recorder
    from trainer.run_folder import RunFolder
    from trainer.saving import Saver
    from trainer.session import build_session
    from trainer.stop_request import StopRequest

    config = training_config(model, run_dir, checkpoint_every)
    folder = RunFolder(Path(run_dir) / f"{model}-{checkpoint_every}")
    folder.create()
    session = build_session(config)
    recorder = Recorder(folder, config.observe)

    class Turns(StopRequest):
        """Read by the loop at every boundary: there a turn ends, and the next one is waited for."""

        def __init__(self) -> None:
            super().__init__()
            self._first, self._last, self._since, self._lines = 0, 0, 0.0, 0

        def __bool__(self) -> bool:
            step = session.state.step
            if step < self._last:
                return False
            elapsed_s = time.perf_counter() - self._since
            if step:
                # The first line of a turn spans the pause before it.
                waits = [line["data_wait"] for line in read_metrics(folder.metrics)[self._lines + 1 :]]
                speed = (step - self._first) * config.data.batch_size / elapsed_s
                _answer({"samples_per_s": speed, "data_wait": sum(waits) / len(waits) if waits else 0.0})
            steps = _next_turn()
            self._lines = len(read_metrics(folder.metrics))
            self._first, self._last, self._since = step, step + steps, time.perf_counter()
            return not steps

    saver = Saver(session, folder, recorder)
    recorder.begin(session.total_steps, None)
    Loop(session, recorder, saver, Turns()).run()
    saver.close()
    recorder.close()


def _compiled(model: str, keras: Any, network: Any, **options: Any) -> Any:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], **options)
    return network


def _plain_fit(model: str) -> Turn:
    """`fit` as users write it: arrays and a batch size."""
    import keras

    network, (x, y) = _compiled(model, keras, keras_model(model)), arrays(model)
    clock = _EpochClock()

    def turn(steps: int) -> dict[str, float]:
        count = min(len(x), steps * batch_size(model)) // batch_size(model)
        network.fit(
            x[: count * batch_size(model)],
            y[: count * batch_size(model)],
            batch_size=batch_size(model),
            epochs=max(1, steps // count),
            verbose=0,
            callbacks=[clock.callback(keras)],
        )
        return {"samples_per_s": count * batch_size(model) / min(clock.epochs_s)}

    return turn


class _EpochClock:
    """Times whole epochs: what `fit` does before the first is not counted against it."""

    def __init__(self) -> None:
        self.epochs_s: list[float] = []

    def callback(self, keras: Any) -> Any:
        """A Keras callback; `epochs_s` begins anew."""
        self.epochs_s = epochs_s = []

        class Clock(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.since = time.perf_counter()

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                epochs_s.append(time.perf_counter() - self.since)

        return Clock()


def _dataset(model: str, repeat: bool = True) -> Any:
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(arrays(model)).cache().shuffle(4096).repeat()
    return dataset.batch(batch_size(model), drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _best_fit(model: str, jit: bool, legacy: bool) -> Turn:
    """`fit` at its best: many steps a call, a prefetched dataset, compiled or not; from its first call to its last."""
    if legacy:
        import tf_keras as keras

        network = tf_keras_model(model)
    else:
        import keras

        network = keras_model(model)
    per_call = STEPS_PER_CALL[model]
    network = _compiled(model, keras, network, jit_compile=jit, steps_per_execution=per_call)
    dataset = _dataset(model)

    def turn(steps: int) -> dict[str, float]:
        ends: list[float] = []

        class Clock(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                ends.append(time.perf_counter())

        calls = max(2, -(-steps // per_call) + 1)
        network.fit(dataset, steps_per_epoch=calls * per_call, epochs=1, verbose=0, callbacks=[Clock()])
        return {"samples_per_s": (len(ends) - 1) * per_call * batch_size(model) / (ends[-1] - ends[0])}

    return turn


def _hand_written(model: str, jit: bool) -> Turn:
    """The shortest loop that a tutorial would write."""
    import keras
    import tensorflow as tf

    network, optimizer = keras_model(model), keras.optimizers.Adam(1e-3)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer.build(network.trainable_variables)
    per_call = STEPS_PER_CALL[model]
    batches = iter(_dataset(model))

    @tf.function(jit_compile=jit)
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, network(x, training=True))
        gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
        optimizer.apply(gradients, network.trainable_variables)
        return loss

    @tf.function
    def loop(batches):
        loss = tf.constant(0.0)
        for _ in tf.range(per_call):
            loss = step(*next(batches))
        return loss

    def turn(steps: int) -> dict[str, float]:
        calls = -(-steps // per_call)
        begin = time.perf_counter()
        for _ in range(calls):
            loop(batches)
        return {"samples_per_s": calls * per_call * batch_size(model) / (time.perf_counter() - begin)}

    return turn


if __name__ == "__main__":
    main()
    # TensorFlow may wait for ever for its input threads, whose data set has no end.
    os._exit(0)
