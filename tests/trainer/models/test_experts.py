from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import small_config
from tests.trainer.strategies.elastic_workers import Workers, curve
from trainer.models.experts import Experts, places_of


@pytest.mark.parametrize("choices", [[2, 0, 2, 2, 1, 0, 2], [3] * 40, [1], list(range(4)) * 16])
def test_every_choice_has_a_slot_in_a_block_of_its_expert(choices: list[int]):
    compiled = tf.function(lambda chosen: places_of(chosen, 4), jit_compile=True)
    places = compiled(tf.constant(choices))
    slots, rows = places.slot_of_choice.numpy(), len(places.is_used) // len(places.expert_of_block)
    assert len(set(slots)) == len(choices) == places.is_used.numpy().sum() and places.is_used.numpy()[slots].all()
    assert places.expert_of_block.numpy()[slots // rows].tolist() == choices
    assert places.choice_of_slot.numpy()[slots].tolist() == list(range(len(choices)))


def by_hand(layer: Experts, x: np.ndarray) -> tuple[np.ndarray, float]:
    """Answers and losses of the layer, token by token."""
    router, first, last = (weight.numpy() for weight in layer.weights)
    tokens = x.reshape(-1, x.shape[-1])
    logits = tokens @ router
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    answers, chosen_counts = np.zeros_like(tokens), np.zeros(layer.num_experts)
    for n, token in enumerate(tokens):
        chosen = np.argsort(-logits[n], kind="stable")[: layer.per_token]
        gates = probability[n, chosen]
        for expert, gate in zip(chosen, gates / gates.sum() if layer.per_token > 1 else gates, strict=True):
            hidden = token @ first[expert]
            answers[n] += gate * ((hidden / (1 + np.exp(-hidden))) @ last[expert])
            chosen_counts[expert] += 1
    uneven = layer.num_experts * (chosen_counts / chosen_counts.sum() * probability.mean(0)).sum()
    size = np.log(np.exp(logits).sum(-1)) ** 2
    return answers.reshape(x.shape), layer.balance * uneven + layer.router_z * size.mean()


@pytest.mark.parametrize("per_token", [1, 2])
def test_answers_losses_and_gradients_are_those_of_each_token_alone(per_token: int):
    layer = Experts(4, per_token, 6, balance=0.3, router_z=0.2)
    x = np.random.default_rng(0).normal(size=(3, 5, 8)).astype("float32")
    layer(x)
    for weight in layer.weights:
        weight.assign(30 * weight.numpy())
    values = [weight.value for weight in layer.weights]

    @tf.function(jit_compile=True)
    def computed(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch([x, *values])
            weights = [tf.convert_to_tensor(v) for v in values]
            found: tuple = layer.stateless_call(weights, [], x, training=True, return_losses=True)
            answers, (loss,) = found[0], found[2]
            total = tf.reduce_sum(answers * mask) + loss
        return answers, loss, [tf.convert_to_tensor(g) for g in tape.gradient(total, [x, *values])]

    mask = np.random.default_rng(1).normal(size=x.shape).astype("float32")
    answers, loss, gradients = computed(tf.constant(x))
    expected, expected_loss = by_hand(layer, x)
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    for place, (variable, gradient) in enumerate(zip([None, *layer.weights], gradients, strict=True)):
        direction = np.random.default_rng(place).normal(size=gradient.shape).astype("float32")
        sides = []
        for step in (1e-3, -1e-3):
            if variable is not None:
                kept = variable.numpy()
                variable.assign(kept + step * direction)
            value, extra = by_hand(layer, x if variable is not None else x + step * direction)
            sides.append((value.astype("float64") * mask).sum() + extra)
            if variable is not None:
                variable.assign(kept)
        slope = (sides[0] - sides[1]) / 2e-3
        assert float(tf.reduce_sum(gradient * direction)) == pytest.approx(slope, rel=0.02, abs=0.02)


TEXT = {
    "model": {"name": "transformer_lm", "layers": 1, "width": 16, "heads": 2, "experts": 4, "experts_per_token": 2},
    "task": {"name": "language_modelling"},
    "data": {
        "name": "synthetic",
        "kind": "tokens",
        "shape": [8],
        "num_classes": 11,
        "num_samples": 64,
        "batch_size": 16,
    },
}


def test_any_number_of_workers_draws_the_same_curve_to_the_bit(tmp_path: Path):
    alone, both = (
        Workers(tmp_path / str(len(hosts)), hosts, **TEXT, train={"steps": 4}).train() for hosts in (["a"], ["a", "b"])
    )
    assert any("experts/router" in name for name in alone.digests)
    assert curve(alone) == curve(both) and alone.digests == both.digests


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts_per_token": 2}, r"model\.experts_per_token=2 chooses among model\.experts, of which there are none"),
        ({"experts": 2, "experts_per_token": 2}, r"must be below model\.experts=2, or nothing is chosen"),
    ],
)
def test_experts_that_cannot_be_chosen_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small_config(**{**TEXT, "model": {"name": "transformer_lm", **options}})
