"""Where the parts of a worker meet in the middle of a step, to add up numbers over all parts of the batch.

Each part is a call of the same traced function on a thread of its own. Its graph hands numbers over through a queue
and takes their total from another one; TensorFlow keeps no thread for who waits at a queue, so any number of parts can
wait for each other on a single thread. The thread that wants the contributions stands between the two queues: when all
parts of this worker are there it adds up over the group, as it does with gradients, and gives every part the total.

All parts come to the same meetings in the same order, that of the trace: an operation that hands numbers over waits
for the total before it, also where a model's branches would not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from trainer.membership import Collective, Reduction

_ENDED = -1  # stands for the number of a part that comes to no more meetings
_NONE = np.zeros(1, np.float32)  # stands for a total that there is not; layers have at least three numbers


class Waits(Protocol):
    """Told of each wait for other workers; see `OwnTime`."""

    def arrive(self) -> None:
        """This worker's numbers are there."""
        ...

    def end(self) -> None:
        """The sum of all numbers is there."""
        ...


class _Arrival:
    """What a part hands over."""

    def __init__(self, part: int, numbers: np.ndarray) -> None:
        self.part, self.numbers = part, numbers


AddUp = Callable[[int, Sequence[_Arrival]], np.ndarray]
"""(number of the meeting in its step, what the parts hand over) -> the total."""


class PartMeeting:
    """Meetings of the parts of one worker, in whatever group there is.

    Args:
        num_parts: Of the global batch.
        part_rows: Samples of a part.
        waits: Told when this worker waits for others.
    """

    def __init__(self, num_parts: int, part_rows: int, waits: Waits) -> None:
        self._num_parts, self._part_rows, self._waits = num_parts, part_rows, waits
        # Each part that waits, and a message of each that has ended, as much as there can be at a time.
        with tf.device("CPU:0"):
            self._arrivals = tf.queue.FIFOQueue(2 * num_parts, [tf.int64, tf.float32])
            # In turn: a part that has its total may come to the next meeting while another has not taken its own yet,
            # but not to the next but one.
            self._totals = [tf.queue.FIFOQueue(num_parts, [tf.float32]) for _ in range(2)]
        self._threads = ThreadPoolExecutor(num_parts, "parts")
        # The meeting that was traced last, and its number in its graph.
        self._last: tf.Operation | None = None
        self._number = 0
        self._lengths: set[int] = set()
        self._reductions: dict[int, Reduction] = {}
        # Of the step in work: what each part has handed over, and what it got.
        self._handed: dict[int, list[np.ndarray]] = {}
        self._given: list[np.ndarray] = []

    def exchange(self, numbers: tf.Tensor, first_sample: tf.Tensor) -> tf.Tensor:
        """See `trainer.step.global_statistics.Exchange`. Traced."""
        length = numbers.shape[0]
        assert length is not None, "layers know their channels"
        self._lengths.add(length)
        before: list[tf.Operation] = []
        if self._last is not None and self._last.graph is numbers.graph:
            before, self._number = [self._last], self._number + 1
        else:
            self._number = 0
        with tf.device("CPU:0"):
            with tf.control_dependencies(before):
                handed = self._arrivals.enqueue([first_sample // self._part_rows, numbers])
            with tf.control_dependencies([handed]):
                total = self._totals[self._number % 2].dequeue()
            # What nobody could add up has another length: the part ends here.
            total = tf.ensure_shape(total, [length])
        self._last = total.op
        return total

    def move_to(self, collective: Collective, parts: Sequence[range]) -> None:
        """Goes on in another group, whose parts are given by rank. All of its members call it, after tracing."""
        # The length is followed by the number of the meeting, so that nobody can be in another one unnoticed.
        self._reductions = {
            length: collective.reduction(parts, self._num_parts, length + 1, np.float32)
            for length in sorted(self._lengths)
        }

    def compute(self, compute: Callable[[int], Any], parts: Sequence[int]) -> list[Any]:
        """Computes parts that meet those of all other workers; alone with each other before the first group.

        Args:
            compute: Calls the traced function for a part.
            parts: All that this worker has.

        Raises:
            Membership.broken: The group is no more, and no part of this worker is at work.
        """
        self._handed, self._given = {part: [] for part in parts}, []
        return self._run(compute, parts, self._add_up if self._reductions else _own_total)

    def compute_again(self, compute: Callable[[int], Any], part: int) -> tuple[Any, list[np.ndarray]]:
        """Computes a part of the last step again, whoever's it is, with the totals that all parts had.

        Returns:
            What `compute` gives, and all that the part would have handed over.
        """
        handed: list[np.ndarray] = []

        def given(number: int, arrivals: Sequence[_Arrival]) -> np.ndarray:
            handed.append(arrivals[0].numbers)
            return self._given[number]

        return self._run(compute, [part], given)[0], handed

    def handed(self, part: int) -> list[np.ndarray]:
        """All that one of this worker's parts has handed over in the last step."""
        return self._handed[part]

    def _run(self, compute: Callable[[int], Any], parts: Sequence[int], add_up: AddUp) -> list[Any]:
        failures: list[BaseException] = []

        def to_the_end(part: int) -> Any:
            try:
                return compute(part)
            except BaseException as error:
                failures.append(error)
            finally:
                self._arrivals.enqueue([_ENDED, []])

        computed = [self._threads.submit(to_the_end, part) for part in parts]
        try:
            error = self._meet(len(parts), add_up)
        except BaseException:
            for totals in self._totals:  # no more meetings are held: parts that wait for one must end
                totals.close()
            raise
        if error is not None or failures:
            raise error or failures[0]  # the others have failed because of it
        return [each.result() for each in computed]

    def _meet(self, num_running: int, add_up: AddUp) -> BaseException | None:
        """Holds meetings until all parts have ended; what made it impossible, if anything did."""
        waiting: list[_Arrival] = []
        error: BaseException | None = None
        number, has_ended = 0, False
        while num_running:
            part, numbers = self._arrivals.dequeue()
            if part.numpy() == _ENDED:
                num_running, has_ended = num_running - 1, True
            else:
                waiting.append(_Arrival(int(part.numpy()), numbers.numpy()))
            if not waiting or len(waiting) < num_running:
                continue
            total = _NONE
            # Where one has ended, the others are on their way to a failure too, which is that one's.
            if error is None and not has_ended:
                try:
                    total = add_up(number, sorted(waiting, key=lambda arrival: arrival.part))
                except BaseException as raised:
                    error = raised
            self._totals[number % 2].enqueue_many([np.broadcast_to(total, (len(waiting), total.size))])
            waiting, number = [], number + 1
        return error

    def _add_up(self, number: int, arrivals: Sequence[_Arrival]) -> np.ndarray:
        reduction = self._reductions[arrivals[0].numbers.size]
        for own, arrival in zip(reduction.own, arrivals, strict=True):
            own[:-1], own[-1] = arrival.numbers, number
            self._handed[arrival.part].append(arrival.numbers)
        self._waits.arrive()
        total = reduction.run()
        self._waits.end()
        assert total[-1] == number * self._num_parts, "all parts come to the same meetings in the same order"
        self._given.append(total[:-1].copy())
        return self._given[-1]


def _own_total(_: int, arrivals: Sequence[_Arrival]) -> np.ndarray:
    """What the parts that are there have together, for a worker that only warms up."""
    return np.sum([arrival.numbers for arrival in arrivals], 0)
