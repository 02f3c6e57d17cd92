"""Sums of gradients that begin while the backward pass still runs.

The backward pass has the gradients of the last layers first. So they are put into buckets from the last variable to the
first one, and each bucket has an operation in the graph that needs its gradients and nothing else: TensorFlow runs it
when they are there, on a thread of its own. It copies them to where they are sent from, and tells a thread of this
worker, which adds up one bucket after the other over the group, in the same order on every member: a bucket that is
early waits for the one before. What fills no bucket, votes, sums and statistics come last, when all is there.

Which elements are added together at a time changes no bit: every element is added over the parts in the same tree.

Source: buckets in the reverse order of layers as in PyTorch's DistributedDataParallel (Li et al., VLDB 2020).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import tensorflow as tf

from trainer.config.elastic import ElasticConfig
from trainer.membership import Reduction
from trainer.step.build import Step
from trainer.strategies.contribution_layout import Bucket, ContributionLayout


def can_overlap(options: ElasticConfig, step: Step, num_parts: int) -> bool:
    """Whether gradients may be added up one by one; the schema refuses what `overlap=always` cannot have."""
    return (
        options.overlap != "never"
        and num_parts > 1
        and not step.compiles_gradients
        and not step.gradients.is_synchronized  # the group is in use while gradients are computed
        and options.outer_every is None
        and options.compression != "top_k"
    )


class Overlap:
    """Adds up this worker's buckets over one group after another, beside what computes them.

    All members do so or none, because all of it follows from the config, the model and the hosts of the group.

    Args:
        options: Of the `elastic` section.

    Attributes:
        is_on: Whether the present group adds up that way.
    """

    def __init__(self, options: ElasticConfig) -> None:
        self._always, self._bucket_bytes = options.overlap == "always", options.bytes_per_bucket
        self._layout: ContributionLayout | None = None
        self._buckets: list[Bucket] = []
        self._sum: _Sum | None = None
        self.is_on = False

    def listen(
        self, layout: ContributionLayout, num_gradients: int, joined: Sequence[tf.Tensor], part: tf.Tensor
    ) -> None:
        """Finds the buckets, and has the graph that is traced say when each of them is there.

        Args:
            layout: Of a part's contribution.
            num_gradients: Among its tensors, the first ones.
            joined: What it gives for the part.
            part: Its number, int64 scalar.
        """
        self._layout, self._buckets = layout, layout.buckets(num_gradients, self._bucket_bytes)
        for number, bucket in enumerate(self._buckets):
            tensors = layout.singles(joined, bucket.tensors)
            tf.numpy_function(partial(self._arrived, number), [part, *tensors], [], name=f"bucket_{number}")

    def move_to(self, hosts: Collection[str]) -> None:
        """Goes on in another group, with members on these hosts."""
        assert self._sum is None, "the sum in the group before has ended with it"
        self.is_on = bool(self._buckets) and (self._always or len(set(hosts)) > 1)

    def ranges(self, length: int) -> list[tuple[int, int]]:
        """The vector of float32 in the order in which it is added up: the buckets, then what lies between them."""
        buckets = [(bucket.begin, bucket.end) for bucket in self._buckets]
        begins = [0, *(end for _, end in sorted(buckets))]
        ends = [*(begin for begin, _ in sorted(buckets)), length]
        return [*buckets, *((begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end)]

    @property
    def there(self) -> Collection[int]:
        """The tensors that need not be packed, because they are in buckets of the sum that has begun."""
        return () if self._sum is None else {i for bucket in self._buckets for i in bucket.tensors}

    @contextlib.contextmanager
    def beside(
        self, reduction: Reduction, parts: Sequence[int], computed: Mapping[int, Sequence[tf.Tensor]]
    ) -> Iterator[None]:
        """While this runs, the gradients of this worker's parts come, and their sum begins; `finish` ends it.

        Args:
            reduction: Of the float32 numbers, in `ranges`.
            parts: That this worker computes.
            computed: The joined tensors of those that it has computed before.
        """
        assert self._sum is None and self._layout is not None, "one step after the other"
        own = dict(zip(parts, reduction.own, strict=True))
        self._sum = _Sum(self._layout, self._buckets, reduction, own)
        try:
            for part, joined in computed.items():
                for number, bucket in enumerate(self._buckets):
                    tensors = self._layout.singles(joined, bucket.tensors)
                    self._sum.put(number, part, [np.asarray(tensor) for tensor in tensors])
            yield
        except BaseException:
            self.cancel()
            raise

    def finish(self) -> None:
        """Returns when all buckets are added up, if any sum has begun.

        Raises:
            Membership.broken: The group is no more.
        """
        begun, self._sum = self._sum, None
        if begun is not None:
            begun.finish()

    def cancel(self) -> None:
        """The gradients do not come. What is being added up is not waited for: others may never come to it."""
        begun, self._sum = self._sum, None
        if begun is not None:
            begun.cancel()

    def _arrived(self, number: int, part: np.ndarray, *gradients: np.ndarray) -> None:
        """A bucket of a part is there; on a thread of TensorFlow's, whose buffers these arrays are."""
        begun = self._sum
        if begun is not None:
            begun.put(number, int(part), gradients)


class _Sum:
    """The buckets of one step, and the thread that adds them up."""

    def __init__(
        self,
        layout: ContributionLayout,
        buckets: Sequence[Bucket],
        reduction: Reduction,
        own: Mapping[int, np.ndarray],
    ) -> None:
        self._layout, self._buckets, self._reduction, self._own = layout, buckets, reduction, own
        self._missing = [set(own) for _ in buckets]
        self._changed = threading.Condition()
        self._is_cancelled = False
        self._error: BaseException | None = None
        # Of one step, so that nothing of it outlives a group; to start a thread takes a tenth of a millisecond.
        self._thread = threading.Thread(target=self._add_up, name="sums", daemon=True)
        self._thread.start()

    def put(self, number: int, part: int, gradients: Sequence[np.ndarray]) -> None:
        """Copies a bucket of a part to where it is added up from; a part of another worker's is not."""
        if part not in self._missing[number]:
            return
        self._layout.put(self._buckets[number].tensors, gradients, self._own[part])
        with self._changed:
            self._missing[number].discard(part)
            self._changed.notify()

    def finish(self) -> None:
        """Waits for the thread; raises what has ended it."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Ends the thread, when it is done with the bucket that it is at."""
        with self._changed:
            self._is_cancelled = True
            self._changed.notify()

    def _add_up(self) -> None:
        try:
            for missing in self._missing:
                with self._changed:
                    self._changed.wait_for(lambda missing=missing: self._is_cancelled or not missing)
                    if self._is_cancelled:
                        return
                self._reduction.run_range()
        except BaseException as error:  # which belongs to the thread that waits for the sum
            self._error = error
