"""Documents packed into windows of one length: as many as fit, and none cut that fits into a window.

Which documents share a window is decided once, when the texts are opened, so that a sample is the same in every epoch
and the order of the samples alone decides what a step reads.

Shape legend: B batch, N tokens of a split, W windows, L length of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.data.checks import DataError
from trainer.data.source import Feature, Schema, SkippedRecords
from trainer.data.token_files import TokenFile
from trainer.data.tokenizer import END_OF_DOCUMENT, Tokenizer


class PackedSource:
    """Windows of whole documents, filled up with ends of documents.

    Attributes:
        tokenizer: What made the tokens.

    Args:
        file: The documents, each with its end.
        tokenizer: As above.
        length: L.
        skipped: Texts that were left out.
    """

    in_memory = True
    may_skip = False

    def __init__(self, file: TokenFile, tokenizer: Tokenizer, length: int, skipped: SkippedRecords):
        self.tokenizer, self.skipped = tokenizer, skipped
        self.failure: DataError | None = None
        self._file = file
        begins, lengths = pieces_of(len(file.tokens), file.starts, length)
        windows, offsets = best_fit(lengths, length)
        table = np.full((windows.max(initial=-1) + 1, length), END_OF_DOCUMENT, file.tokens.dtype)
        self._first = np.full(len(table), -1)
        for begin, size, window, offset in zip(begins, lengths, windows, offsets, strict=True):
            table[window, offset : offset + size] = file.tokens[begin : begin + size]
            if not offset:
                self._first[window] = begin
        feature = Feature((length,), "int32", num_values=tokenizer.vocabulary_size, separator=END_OF_DOCUMENT)
        self.schema = Schema({"tokens": feature}, None, len(table), tokenizer.vocabulary_size)
        with tf.device("CPU:0"):
            self._table = tf.constant(table)

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads the windows at `index`, int64 [B]: "tokens", int32 [B, L]."""
        return {"tokens": tf.cast(tf.gather(self._table, index), tf.int32)}

    def locate(self, index: int) -> str:
        """Names the file of a window's first document and its place there."""
        name, position = self._file.document_at(int(self._first[index]))
        return f"{name}, token {position}"


def pieces_of(num_tokens: int, starts: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts documents that are longer than a window; each piece begins with the last token of the one before.

    Args:
        num_tokens: N.
        starts: Of the documents; each ends where the next begins.
        length: L.

    Returns:
        Begin and length of each piece, int64. A document of its end alone, and a rest of one token, predict nothing
        and are left out.
    """
    begins, lengths = [], []
    for start, end in zip(starts, [*starts[1:], num_tokens], strict=True):
        for begin in range(start, max(end - 1, start), length - 1):
            begins.append(begin)
            lengths.append(min(length, end - begin))
    return np.asarray(begins, np.int64), np.asarray(lengths, np.int64)


def best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Puts pieces into windows: the longest first, each where it leaves the least room (best-fit decreasing).

    Args:
        lengths: At most `capacity` each.
        capacity: Of a window.

    Returns:
        Window and place in it of each piece, int64.
    """
    windows, offsets = np.zeros_like(lengths), np.zeros_like(lengths)
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set where some window has room for r more
    num_windows = 0
    for piece in np.argsort(-lengths, kind="stable"):
        size = int(lengths[piece])
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            window = with_room[room].pop()
            if not with_room[room]:
                rooms &= ~(1 << room)
        else:
            room, window = capacity, num_windows
            num_windows += 1
        windows[piece], offsets[piece] = window, capacity - room
        with_room[room - size].append(window)
        rooms |= 1 << (room - size)
    return windows, offsets
