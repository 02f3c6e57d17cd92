"""What a model of tokens says comes next: with the keys and values of what it has read kept, and without.

Shape legend: B batch (1 here), T context, S positions read at once (T or 1), H query heads, K key and value heads, E
width of a head, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from trainer.config.model import TransformerLmModel
from trainer.models.attention import attend, rotation, turn
from trainer.models.transformer_lm import block_layers, feed_forward


class Decoder(Protocol):
    """Reads tokens and says what comes next.

    Attributes:
        context: T, the most tokens that it looks back on.
        vocabulary: V.
    """

    context: int
    vocabulary: int

    def read(self, tokens: Sequence[int]) -> np.ndarray:
        """Begins with these tokens, 1 to T of them; the logits of the next one, float32 [V]."""
        ...

    def append(self, token: int) -> np.ndarray:
        """Goes on with one more token, of at most T in all; the logits of the next one, float32 [V]."""
        ...


class WholeWindowDecoder:
    """Calls any causal model of tokens with the whole window for each token.

    Args:
        model: Tokens [B, T] to logits [B, T, V].
        compiled: By XLA, which a model of the user's own need not bear.
    """

    def __init__(self, model: keras.Model, compiled: bool = False):
        self.context, self.vocabulary = model.output_shape[1:]
        self._model = model
        self._tokens: list[int] = []
        self._call = tf.function(self._logits, jit_compile=compiled)

    def read(self, tokens: Sequence[int]) -> np.ndarray:
        """As in `Decoder`."""
        self._tokens = list(tokens)
        return self._last_logits()

    def append(self, token: int) -> np.ndarray:
        """As in `Decoder`."""
        self._tokens.append(token)
        return self._last_logits()

    def _last_logits(self) -> np.ndarray:
        return self._call(*_padded(self._tokens, self.context)).numpy()

    @tf.autograph.experimental.do_not_convert
    def _logits(self, tokens_BT: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._model(tokens_BT, training=False)[0], last)


class CachedDecoder:
    """Reads each token once: the keys and values of those before it are kept (Shazeer, "Fast transformer decoding",
    2019).

    There are two functions of static shape: one reads a whole window, the other one token. The cache is as long as the
    context, and what is not written yet is masked. A position that `read` filled up with padding is written again
    before anything sees it.

    Args:
        model: Built by `transformer_lm`.
        config: That it was built from.
    """

    def __init__(self, model: keras.Model, config: TransformerLmModel):
        self.context, self.vocabulary = model.output_shape[1:]
        self._config = config
        self._embedding = model.get_layer("token_embedding")
        self._positions = model.get_layer("position_embedding") if config.positions == "learned" else None
        self._blocks = [block_layers(model, i) for i in range(config.layers)]
        self._final_norm = model.get_layer("final_norm")
        kv_heads, head_width = config.kv_heads or config.heads, config.width // config.heads
        shape = [1, kv_heads, self.context, head_width]
        dtype = self._final_norm.compute_dtype
        self._cache = [tuple(tf.Variable(tf.zeros(shape, dtype)) for _ in range(2)) for _ in self._blocks]
        self._rotation = rotation(self.context, head_width) if config.positions == "rotary" else None
        self._length = 0
        self._read = tf.function(self._logits, jit_compile=True)

    def read(self, tokens: Sequence[int]) -> np.ndarray:
        """As in `Decoder`."""
        self._length = len(tokens)
        window, last = _padded(tokens, self.context)
        return self._read(window, tf.constant(0), last).numpy()

    def append(self, token: int) -> np.ndarray:
        """As in `Decoder`."""
        position, self._length = self._length, self._length + 1
        return self._read(tf.constant([[token]]), tf.constant(position), tf.constant(0)).numpy()

    @tf.autograph.experimental.do_not_convert
    def _logits(self, tokens_BS: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """The logits after the token at `last`, [V], of tokens at the positions from `first` on."""
        places_S = first + tf.range(tokens_BS.shape[1])
        x_BSD = self._embedding(tokens_BS)
        if self._positions is not None:
            x_BSD += tf.cast(tf.gather(tf.convert_to_tensor(self._positions.positions), places_S), x_BSD.dtype)
        is_masked_ST = tf.range(self.context)[None, :] > places_S[:, None]
        for block, cache in zip(self._blocks, self._cache, strict=True):
            mixed_BSD = self._attention(block, cache, x_BSD, places_S, is_masked_ST)
            x_BSD += block["attention_output"](mixed_BSD)
            x_BSD += feed_forward(block, x_BSD)
        x_BD = tf.gather(self._final_norm(x_BSD), last, axis=1)
        return tf.cast(self._embedding(x_BD, reverse=True), tf.float32)[0]

    def _attention(
        self, block: dict[str, Any], cache: tuple[tf.Variable, ...], x_BSD: tf.Tensor, places_S: tf.Tensor, masked: Any
    ) -> tf.Tensor:
        qkv = block["queries_keys_values"](block["attention_norm"](x_BSD))
        q_BHSE, k_BKSE, v_BKSE = block["attention"].heads(qkv)
        if self._rotation is not None:
            cos_SE, sin_SE = (tf.gather(tf.constant(table, qkv.dtype), places_S) for table in self._rotation)
            q_BHSE, k_BKSE = turn(q_BHSE, cos_SE, sin_SE), turn(k_BKSE, cos_SE, sin_SE)
        for kept, new in zip(cache, (k_BKSE, v_BKSE), strict=True):
            if new.shape[2] == self.context:
                kept.assign(new)
            else:
                is_here = tf.range(self.context)[:, None] == places_S
                kept.assign(tf.where(is_here, new, kept))
        keys, values = (kept.read_value() for kept in cache)
        return attend(q_BHSE, keys, values, masked)


def _padded(tokens: Sequence[int], context: int) -> tuple[tf.Tensor, tf.Tensor]:
    """A window of static length, int32 [1, T], and the place of its last token."""
    window = np.zeros([1, context], np.int32)
    window[0, : len(tokens)] = tokens
    return tf.constant(window), tf.constant(len(tokens) - 1)
