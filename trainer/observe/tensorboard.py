"""TensorBoard event files, written off the critical path and without a zig-zag after a resume.

`tf.summary` cannot write the one event that TensorBoard understands as "training went back to step s" (a `SessionLog`
with status START), so the events are built here. Every process writes a file of its own, and a resumed one begins it
with that event: TensorBoard then forgets what the earlier files say about later steps. The TensorBoard package is not
imported.
"""

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

Event = tf.compat.v1.Event
SessionLog = tf.compat.v1.SessionLog
HistogramProto = tf.compat.v1.HistogramProto

FLUSH_INTERVAL_S = 2.0
HISTOGRAM_BINS = 40
_QUEUE_SIZE = 1000


def _file_name(folder: Path) -> str:
    """A name that sorts after those in the folder: TensorBoard reads the files in the order of their names."""
    earlier = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    seconds = max([int(time.time()), *(int(part) + 1 for part in earlier if part.isdigit())])
    return f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}.{os.getpid()}"


def _histogram(values: np.ndarray) -> Any:
    """A histogram of the finite values, any shape; NaN and infinities have no place on an axis."""
    finite = np.asarray(values, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return HistogramProto()
    counts, edges = np.histogram(finite, bins=HISTOGRAM_BINS)
    return HistogramProto(
        min=finite.min(),
        max=finite.max(),
        num=finite.size,
        sum=finite.sum(),
        sum_squares=np.square(finite).sum(),
        bucket_limit=edges[1:].tolist(),
        bucket=counts.tolist(),
    )


class TensorBoardWriter:
    """Writes scalars, histograms, texts and graphs from a thread of its own.

    The caller hands over host values and leaves them unchanged from then on: events are built in the writer's thread.
    A failed write (full disk) is reported once and ends the writing; training goes on.

    Args:
        folder: `tensorboard/` of the run, created.
        restored_step: the step that this process resumed at, None for a fresh start.
        on_failure: hears of the failed write, in the writer's thread.
    """

    def __init__(
        self,
        folder: Path,
        restored_step: int | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / _file_name(folder)
        self._on_failure = on_failure
        self._queue: queue.Queue[Callable[[], bytes] | None] = queue.Queue(_QUEUE_SIZE)
        self._put(lambda event: event.MergeFrom(Event(file_version="brain.Event:2")))
        # START purges from its own step on, so the restored step itself stays. Without a checkpoint a second attempt
        # starts at 0 and forgets everything.
        self._put(
            lambda event: event.MergeFrom(Event(session_log=SessionLog(status=SessionLog.START))),
            step=0 if restored_step is None else restored_step + 1,
        )
        self._thread = threading.Thread(target=self._write, name="tensorboard", daemon=True)
        self._thread.start()

    def _put(self, fill: Callable[[Any], None], step: int = 0) -> None:
        """Queues an event of this moment; `fill` completes it in the writer's thread."""
        wall_time = time.time()

        def build() -> bytes:
            event = Event(step=step, wall_time=wall_time)
            fill(event)
            return event.SerializeToString()

        self._queue.put(build)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers by tag, such as `{"train/loss": 0.3}`; a slash groups them."""

        def fill(event: Any) -> None:
            for tag, value in values.items():
                event.summary.value.add(tag=tag, simple_value=float(value))

        self._put(fill, step)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Writes the distribution of each array, any shape."""

        def fill(event: Any) -> None:
            for tag, array in values.items():
                event.summary.value.add(tag=tag, histo=_histogram(array))

        self._put(fill, step)

    def text(self, tag: str, markdown: str) -> None:
        """Writes a text, shown under TEXT; the resolved config belongs there."""

        def fill(event: Any) -> None:
            value = event.summary.value.add(tag=tag)
            value.tensor.CopyFrom(tf.make_tensor_proto([markdown.encode()], dtype=tf.string))
            value.metadata.plugin_data.plugin_name = "text"

        self._put(fill)

    def graph(self, graph_def: bytes) -> None:
        """Writes a graph: `concrete_function.graph.as_graph_def().SerializeToString()`."""
        self._put(lambda event: event.MergeFrom(Event(graph_def=graph_def)))

    def _write(self) -> None:
        """The writer's thread: takes events until it is told to end, flushes when idle or every two seconds."""
        file: tf.io.TFRecordWriter | None = None
        flush_at = 0.0
        try:
            file = tf.io.TFRecordWriter(str(self.path))
            while (build := self._next(file)) is not None:
                file.write(build())
                if time.monotonic() >= flush_at:
                    file.flush()
                    flush_at = time.monotonic() + FLUSH_INTERVAL_S
            file.close()
        except (tf.errors.OpError, OSError) as error:
            if self._on_failure:
                self._on_failure(error)
            while self._queue.get() is not None:
                pass

    def _next(self, file: tf.io.TFRecordWriter) -> Callable[[], bytes] | None:
        try:
            return self._queue.get(timeout=FLUSH_INTERVAL_S)
        except queue.Empty:
            file.flush()
            return self._queue.get()

    def close(self) -> None:
        """Writes what is queued and ends the thread; a second call does nothing."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
