"""Windows of tokens of which some are hidden, for masked language modelling (Devlin et al., "BERT", 2018).

Of the tokens, a share is to be predicted. Four in five of these are replaced by the mask, one in ten by another token,
and one in ten stays, so that the model must doubt what it sees too. The draw is a function of (seed, step, position),
like every augmentation: each epoch hides a window in another way, and a resumed run hides what it would have hidden.
For measuring, the draw is a function of the window alone.

Shape legend: B batch, T context.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from trainer.data.checks import DataError
from trainer.data.counter_random import sample_keys, uniform
from trainer.data.source import Feature, Schema, SkippedRecords
from trainer.data.token_files import TokenFile
from trainer.data.tokenizer import END_OF_DOCUMENT, Tokenizer

TOKENS, ORIGINALS = "tokens", "originals"
NOT_PREDICTED = -1
MASKED, REPLACED = 0.8, 0.1
# Tells the draws for measuring from those of any seed that a run may have.
MEASURING = 0x6D65_6173


class MaskedSource:
    """Windows of T tokens, one after the other.

    Attributes:
        tokenizer: What made the tokens; the number after its last token is the mask.

    Args:
        file: The tokens.
        tokenizer: As above.
        context: T.
        share: Of the tokens, to be predicted.
        skipped: Texts that were left out.
    """

    in_memory = True
    may_skip = False

    def __init__(self, file: TokenFile, tokenizer: Tokenizer, context: int, share: float, skipped: SkippedRecords):
        self.tokenizer, self.skipped = tokenizer, skipped
        self.failure: DataError | None = None
        self._file, self._context, self._share = file, context, share
        self._mask = tokenizer.vocabulary_size
        features = {
            TOKENS: Feature((context,), "int32", num_values=self._mask + 1),
            ORIGINALS: Feature((context,), "int32"),
        }
        num_windows = len(file.tokens) // context
        self.schema = Schema(features, ORIGINALS, num_windows, self._mask + 1)
        with tf.device("CPU:0"):
            self._table = tf.constant(np.asarray(file.tokens[: num_windows * context]).reshape(num_windows, context))

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads the windows at `index`, int64 [B], hidden as for measuring.

        Returns:
            "tokens", int32 [B, T], as the model sees them; "originals", int32 [B, T], what stood where a token is to be
            predicted, and -1 elsewhere.
        """
        index = tf.cast(index, tf.int64)
        tokens = tf.cast(tf.gather(self._table, index), tf.int32)
        return self._hidden(tokens, sample_keys(MEASURING, index))

    def redraw(self, batch: dict[str, tf.Tensor], keys: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same windows, hidden anew by keys, uint32 [B]."""
        tokens = tf.where(batch[ORIGINALS] == NOT_PREDICTED, batch[TOKENS], batch[ORIGINALS])
        return {**batch, **self._hidden(tokens, keys)}

    def _hidden(self, tokens_BT: tf.Tensor, keys: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = (self._context,)
        is_predicted = (uniform(keys, 0, shape) < self._share) & (tokens_BT != END_OF_DOCUMENT)
        fate = uniform(keys, 1, shape)
        others = 1 + tf.cast(uniform(keys, 2, shape) * float(self._mask - 1), tf.int32)
        seen = tf.where(fate < MASKED, self._mask, tf.where(fate < MASKED + REPLACED, others, tokens_BT))
        return {
            TOKENS: tf.where(is_predicted, seen, tokens_BT),
            ORIGINALS: tf.where(is_predicted, tokens_BT, NOT_PREDICTED),
        }

    def locate(self, index: int) -> str:
        """Names the file of a window and the position of its first token there."""
        name, position = self._file.document_at(index * self._context)
        return f"{name}, token {position}"
