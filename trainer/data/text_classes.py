"""Windows of tokens with the class of the text that they come from.

Shape legend: B batch, T context, W windows.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from trainer.data.checks import DataError
from trainer.data.source import Feature, Schema, SkippedRecords
from trainer.data.token_files import TokenFile
from trainer.data.tokenizer import END_OF_DOCUMENT, Tokenizer


class TextClassSource:
    """Windows of T tokens, none of which spans two texts. Texts without a class are left out.

    The rest of a text is left out too, unless it is all there is; then it is filled up with ends of documents.

    Attributes:
        tokenizer: What made the tokens. Like those of masked text, they leave a number for the mask, so that a model
            which was trained to fill in what is hidden fits.

    Args:
        file: The tokens.
        tokenizer: As above.
        context: T.
        classes: For each class, patterns of file names.
        skipped: Texts that were left out.

    Raises:
        DataError: A class has no file, or a file has two classes.
    """

    in_memory = True
    may_skip = False

    def __init__(
        self,
        file: TokenFile,
        tokenizer: Tokenizer,
        context: int,
        classes: Mapping[str, Sequence[str]],
        skipped: SkippedRecords,
    ):
        self.tokenizer, self.skipped = tokenizer, skipped
        self.failure: DataError | None = None
        self._file = file
        labels = _labels(file.names, classes)
        begins, windows, of_window = [], [], []
        for name, start, end in zip(file.names, file.starts, [*file.starts[1:], len(file.tokens)], strict=True):
            if name not in labels:
                continue
            last = max(start + 1, end - context + 1)
            for begin in range(start, last, context):
                window = np.asarray(file.tokens[begin : min(begin + context, end)])
                windows.append(np.pad(window, (0, context - len(window)), constant_values=END_OF_DOCUMENT))
                begins.append(begin)
                of_window.append(labels[name])
        self._begins = begins
        features = {
            "tokens": Feature((context,), "int32", num_values=tokenizer.vocabulary_size + 1),
            "label": Feature((), "int32"),
        }
        self.schema = Schema(features, "label", len(windows), len(classes), tuple(classes))
        with tf.device("CPU:0"):
            self._table = tf.constant(np.stack(windows))
            self._labels = tf.constant(of_window, tf.int32)

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads the windows at `index`, int64 [B]: "tokens", int32 [B, T], and "label", int32 [B]."""
        return {"tokens": tf.cast(tf.gather(self._table, index), tf.int32), "label": tf.gather(self._labels, index)}

    def locate(self, index: int) -> str:
        """Names the file of a window and the position of its first token there."""
        name, position = self._file.document_at(self._begins[index])
        return f"{name}, token {position}"


def _labels(names: Sequence[str], classes: Mapping[str, Sequence[str]]) -> dict[str, int]:
    labels: dict[str, int] = {}
    numbered = list(classes)
    for label, patterns in enumerate(classes.values()):
        for pattern in patterns:
            found = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
            if not found:
                raise DataError(pattern, "", f"no text of class {numbered[label]!r} matches it", "correct data.classes")
            for name in found:
                if labels.setdefault(name, label) != label:
                    both = f"{numbered[labels[name]]!r} and {numbered[label]!r}"
                    raise DataError(name, "", f"it is in the classes {both}", "name it once in data.classes")
    return labels
