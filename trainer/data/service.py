"""Blocks that other processes read: what is asked for, how it is answered, and how it becomes tensors.

A request names the first data step, the number of steps and the part of the batch. The answer is a function of these
and of the config alone, so it does not matter who answers, how often, or when: the position stays the step.

Shape legend: K steps in a block, b samples of a batch's part.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from trainer.config.data import DataConfig
from trainer.data.checks import DataError
from trainer.data.mixture import MixtureSource, sample_order
from trainer.data.order import SampleOrder
from trainer.data.pipeline import train_blocks
from trainer.data.registry import open_source
from trainer.data.shard import Shard
from trainer.data.source import SkippedRecords, Source

# A regrouped run asks for other parts of the batch. Each kind of request has a traced function, and few are in use.
_MOST_KINDS = 8


class ReadBlock(NamedTuple):
    """An answer.

    Attributes:
        arrays: The features by name, each [K, b, ...], and perhaps "sample_weight".
        notes: The records that this process has left out so far: for each part of the source a list of
            (file, record, rule).
    """

    arrays: dict[str, np.ndarray]
    notes: list[list[tuple[str, str, str]]]


class BlockService(Protocol):
    """Whoever finds somebody that answers."""

    warn: Callable[[str], object]

    def blocks(
        self,
        num_blocks: int,
        request: Callable[[int], Mapping[str, Any]],
        read_here: Callable[[Mapping[str, Any]], Any],
    ) -> Iterator[Any]:
        """Gives what `read_here` would give for the requests of the blocks 0, 1, 2 ..., in this order."""
        ...


class BlockAnswers:
    """Answers requests, several at once; the same bytes as the pipeline of a training gives.

    Args:
        source: The training data.
        order: Of its samples.
        augment: As in `data.augment`.
        seed: Of the augmentation.
    """

    def __init__(self, source: Source, order: SampleOrder, augment: Sequence[str], seed: int) -> None:
        self._source, self._order, self._augment, self._seed = source, order, augment, seed
        self._lock = threading.Lock()
        self._functions: OrderedDict[tuple, Callable[[tf.Tensor], dict[str, tf.Tensor]]] = OrderedDict()

    @classmethod
    def of(cls, data: DataConfig, seed: int) -> BlockAnswers:
        """Those of a config.

        Raises:
            DataError: The data are not what the config says.
        """
        source = open_source(data, "train")
        return cls(source, sample_order(data, source, seed), data.augment, seed)

    def __call__(self, request: Mapping[str, Any]) -> ReadBlock:
        """Reads a block.

        Raises:
            DataError: A record cannot be read.
            ValueError, KeyError: It is no request of this training.
        """
        read = self._function(int(request["steps"]), Shard(*map(int, request["shard"])))
        try:
            with tf.device("CPU:0"):
                block = read(tf.constant(int(request["first"]), tf.int64))
                arrays = {name: values.numpy() for name, values in block.items()}
        except tf.errors.OpError:
            if self._source.failure is not None:
                raise self._source.failure from None
            raise
        lists = [[tuple(record) for record in part.records()] for part in _skip_lists(self._source)]
        return ReadBlock(arrays, lists)  # type: ignore[arg-type]

    def _function(self, steps: int, shard: Shard) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        with self._lock:
            kind = (steps, shard)
            if kind not in self._functions:
                self._functions[kind] = self._build(steps, shard)
                if len(self._functions) > _MOST_KINDS:
                    self._functions.popitem(last=False)
            self._functions.move_to_end(kind)
            return self._functions[kind]

    def _build(self, steps: int, shard: Shard) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """The training's own pipeline, over one block: what maps a step to samples is the same piece of graph."""

        @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.int64)])
        def read(first: tf.Tensor) -> dict[str, tf.Tensor]:
            blocks = train_blocks(
                self._source,
                self._order,
                first_step=first,  # type: ignore[arg-type]  a tensor, so that it is traced once
                num_steps=steps,
                block_steps=steps,
                augment=self._augment,
                seed=self._seed,
                shard=shard,
            )
            return blocks.get_single_element()

        read.get_concrete_function()
        return read


def served_blocks(
    service: BlockService,
    answers: BlockAnswers,
    *,
    first_step: int,
    num_steps: int,
    block_steps: int,
    shard: Shard,
    source: Source,
) -> Iterator[dict[str, tf.Tensor]]:
    """What `train_blocks` gives, read by whoever the service finds.

    Args:
        service: Finds somebody.
        answers: What this process gives itself, where nobody else does.
        first_step: Steps done before.
        num_steps: Number of batches; the last block may hold more.
        block_steps: K.
        shard: What of each global batch to read.
        source: Is told of the records that others have left out.

    Raises:
        DataError: A record cannot be read, or more are left out than the config allows.
    """

    def request(index: int) -> dict[str, Any]:
        return {"first": first_step + index * block_steps, "steps": block_steps, "shard": list(shard)}

    lists = _skip_lists(source)
    for arrays, notes in service.blocks(-(-num_steps // block_steps), request, answers):
        for part, records in zip(lists, notes, strict=True):
            for record in records:
                part.add(DataError(*record))
        yield {name: _tensor(values) for name, values in arrays.items()}


def _skip_lists(source: Source) -> list[SkippedRecords]:
    """Of the parts of a source, each of which has a bound of its own."""
    return [part.skipped for part in source.sources] if isinstance(source, MixtureSource) else [source.skipped]


def _tensor(values: np.ndarray) -> tf.Tensor:
    """The array on the CPU, without a copy where its memory can be taken over."""
    if values.size and values.flags.writeable and values.flags.c_contiguous and values.ctypes.data % 64 == 0:
        return tf.experimental.dlpack.from_dlpack(values.__dlpack__())
    with tf.device("CPU:0"):
        return tf.constant(values)
