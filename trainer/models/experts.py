"""A feed-forward layer of many networks, of which each token passes through a few (Shazeer et al., "Outrageously large
neural networks: the sparsely-gated mixture-of-experts layer", 2017; Fedus et al., "Switch transformers", 2021).

No token is dropped and no shape depends on the data. The choices of all tokens are sorted by expert and laid out in
blocks of rows that belong to one expert each (as in Gale et al., "MegaBlocks: efficient sparse training with
mixture-of-experts", 2022), so that the experts are two batched products. The last block of an expert is filled up.

Shape legend: B batch, T time, D width, H width inside an expert, N = B T tokens, X experts, K experts of a token,
C = N K choices, J blocks, R rows of a block, S = J R slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trainer.models.static_shape import sample_shape

_BLOCKS_OF_AN_EXPERT = 4
"""As many full blocks has an expert that is chosen as often as the others. With fewer, more rows are filled up for
nothing; the weights are laid out once for each block, so more of them take memory."""


class Places(NamedTuple):
    """Where each choice of a token lies among the slots, int32.

    Attributes:
        expert_of_block: [J].
        choice_of_slot: [S], any choice where the slot is empty.
        is_used: [S], bool.
        slot_of_choice: [C].
    """

    expert_of_block: tf.Tensor
    choice_of_slot: tf.Tensor
    is_used: tf.Tensor
    slot_of_choice: tf.Tensor


def places_of(expert_of_choice: tf.Tensor, num_experts: int) -> Places:
    """Lays choices out in blocks of one expert each, those of an expert in their order.

    There are (C + min(X, C) (R - 1)) / R blocks, rounded down: enough however the choices fall.

    Args:
        expert_of_choice: [C], int32.
        num_experts: X.
    """
    count = expert_of_choice.shape[0]
    if count is None:  # an unknown batch, where nothing is compiled for a shape
        count = tf.shape(expert_of_choice)[0]
        rows = tf.maximum(1, count // (_BLOCKS_OF_AN_EXPERT * num_experts))
        num_blocks = (count + tf.minimum(num_experts, count) * (rows - 1)) // rows
    else:
        rows = max(1, count // (_BLOCKS_OF_AN_EXPERT * num_experts))
        num_blocks = (count + min(num_experts, count) * (rows - 1)) // rows
    order = tf.argsort(expert_of_choice, stable=True)
    counts = tf.reduce_sum(tf.one_hot(expert_of_choice, num_experts, dtype=tf.int32), 0)
    blocks = (counts + rows - 1) // rows
    first_choice, first_block = tf.cumsum(counts, exclusive=True), tf.cumsum(blocks, exclusive=True)
    is_after = tf.range(num_blocks)[:, None] >= (first_block + blocks)[None, :]
    expert_of_block = tf.minimum(tf.reduce_sum(tf.cast(is_after, tf.int32), -1), num_experts - 1)
    expert_of_slot = tf.gather(expert_of_block, tf.range(num_blocks * rows) // rows)
    row = tf.range(num_blocks * rows) - rows * tf.gather(first_block, expert_of_slot)
    choice = tf.minimum(tf.gather(first_choice, expert_of_slot) + row, count - 1)
    slots = tf.argsort(order) + tf.gather(rows * first_block - first_choice, expert_of_choice)
    return Places(expert_of_block, tf.gather(order, choice), row < tf.gather(counts, expert_of_slot), slots)


@keras.saving.register_keras_serializable("phalanx")
class Experts(keras.layers.Layer):
    """Passes each token through the K experts that its router likes best, and adds their answers by its gates.

    With K = 1 the gate is the probability of the expert (Fedus et al. 2021), with more they add up to 1. In training it
    adds two losses: that experts are chosen equally often, `balance` X sum(share chosen times mean probability), and
    that the router's logits stay small, `router_z` mean(logsumexp squared) (Zoph et al., "ST-MoE", 2022). Both are of
    the tokens of this call alone: of a virtual worker's part of the batch.

    Args:
        num_experts: X.
        per_token: K.
        hidden: H.
        balance: Weight of the first loss.
        router_z: Weight of the second one.
        output_scale: Of the standard deviation, 0.02, that the experts' last weights are drawn with.
    """

    def __init__(
        self,
        num_experts: int,
        per_token: int,
        hidden: int,
        balance: float = 0.0,
        router_z: float = 0.0,
        output_scale: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_experts, self.per_token, self.hidden = num_experts, per_token, hidden
        self.balance, self.router_z, self.output_scale = balance, router_z, output_scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights: router [D, X], and of all experts [X, D, H] and [X, H, D]."""
        width, experts = input_shape[-1], self.num_experts
        drawn = keras.initializers.RandomNormal
        self.router = self.add_weight(shape=(width, experts), initializer=drawn(stddev=0.02), name="router")
        shape = (experts, width, self.hidden)
        self.first = self.add_weight(shape=shape, initializer=drawn(stddev=0.02), name="hidden_kernel")
        last = drawn(stddev=0.02 * self.output_scale)
        self.last = self.add_weight(shape=(experts, self.hidden, width), initializer=last, name="output_kernel")

    def call(self, x_BTD: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """What the experts add to each position, [B, T, D]."""
        time, width = sample_shape(x_BTD)
        tokens_ND = tf.reshape(x_BTD, [-1, width])
        # In float32: a choice between experts that are nearly equal must not hang on 8 bits.
        router = tf.cast(tf.convert_to_tensor(self.router), tf.float32)
        logits_NX = tf.matmul(tf.cast(tokens_ND, tf.float32), router)
        chosen_NK = tf.math.top_k(tf.stop_gradient(logits_NX), self.per_token).indices
        is_chosen_NKX = tf.one_hot(chosen_NK, self.num_experts)
        probability_NX = tf.nn.softmax(logits_NX)
        gates_NK = tf.reduce_sum(is_chosen_NKX * probability_NX[:, None, :], -1)
        if self.per_token > 1:
            gates_NK /= tf.reduce_sum(gates_NK, -1, keepdims=True)
        if training:
            self._add_losses(logits_NX, probability_NX, is_chosen_NKX)
        places = places_of(tf.reshape(chosen_NK, [-1]), self.num_experts)
        slots_SD = _to_slots(tokens_ND, places, self.per_token)
        answers_NKD = _from_slots(self._answers(slots_SD, places), places, self.per_token)
        mixed_ND = tf.reduce_sum(answers_NKD * tf.cast(gates_NK, answers_NKD.dtype)[:, :, None], 1)
        return tf.reshape(mixed_ND, [-1, time, width])

    def _answers(self, slots_SD: tf.Tensor, places: Places) -> tf.Tensor:
        num_blocks, width = tf.shape(places.expert_of_block)[0], slots_SD.shape[-1]
        blocks_JRD = tf.reshape(slots_SD, [places.expert_of_block.shape[0] or num_blocks, -1, width])
        first_JDH, last_JHD = (
            _of_blocks(tf.cast(tf.convert_to_tensor(weights), slots_SD.dtype), places.expert_of_block)
            for weights in (self.first, self.last)
        )
        hidden_JRH = tf.nn.silu(tf.matmul(blocks_JRD, first_JDH))
        return tf.reshape(tf.matmul(hidden_JRH, last_JHD), [-1, width])

    def _add_losses(self, logits_NX: tf.Tensor, probability_NX: tf.Tensor, is_chosen_NKX: tf.Tensor) -> None:
        share_X = tf.reduce_mean(is_chosen_NKX, [0, 1])
        uneven = self.num_experts * tf.reduce_sum(share_X * tf.reduce_mean(probability_NX, 0))
        size = tf.reduce_mean(tf.square(tf.reduce_logsumexp(logits_NX, -1)))
        self.add_loss(self.balance * uneven + self.router_z * size)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        names = ("num_experts", "per_token", "hidden", "balance", "router_z", "output_scale")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


# A gather's own gradient is a scatter, which no processor does quickly. Here each one is a gather again, because where
# everything lies is known in both directions, or a product.


def _to_slots(tokens_ND: tf.Tensor, places: Places, per_token: int) -> tf.Tensor:
    """The token of each slot, [S, D]; zeros where it is empty."""

    @tf.custom_gradient
    def spread(tokens_ND: tf.Tensor) -> Any:
        def gradient(slots_SD: tf.Tensor) -> tf.Tensor:
            of_choices = tf.gather(slots_SD, places.slot_of_choice)
            return tf.reduce_sum(tf.reshape(of_choices, [-1, per_token, slots_SD.shape[-1]]), 1)

        return _used(tf.gather(tokens_ND, places.choice_of_slot // per_token), places), gradient

    return spread(tokens_ND)


def _from_slots(slots_SD: tf.Tensor, places: Places, per_token: int) -> tf.Tensor:
    """What the slots of each token hold, [N, K, D]."""

    @tf.custom_gradient
    def collected(slots_SD: tf.Tensor) -> Any:
        width = slots_SD.shape[-1]

        def gradient(choices_NKD: tf.Tensor) -> tf.Tensor:
            return _used(tf.gather(tf.reshape(choices_NKD, [-1, width]), places.choice_of_slot), places)

        return tf.reshape(tf.gather(slots_SD, places.slot_of_choice), [-1, per_token, width]), gradient

    return collected(slots_SD)


def _of_blocks(weights: tf.Tensor, expert_of_block: tf.Tensor) -> tf.Tensor:
    """The weights of each block's expert, [J, ...] of [X, ...]."""

    @tf.custom_gradient
    def chosen(weights: tf.Tensor) -> Any:
        def gradient(of_blocks: tf.Tensor) -> tf.Tensor:
            is_of = tf.one_hot(expert_of_block, weights.shape[0], dtype=of_blocks.dtype)
            return tf.einsum("jx,jab->xab", is_of, of_blocks)

        return tf.gather(weights, expert_of_block), gradient

    return chosen(weights)


def _used(slots_SD: tf.Tensor, places: Places) -> tf.Tensor:
    return tf.where(places.is_used[:, None], slots_SD, tf.zeros([], slots_SD.dtype))
