import math

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.task import LanguageModellingTask
from trainer.data.source import Feature, Schema
from trainer.tasks.registry import build_task

CONTEXT = 6


def task_of(vocabulary: int):
    feature = Feature((CONTEXT + 1,), "int32", num_values=vocabulary)
    return build_task(LanguageModellingTask(), Schema({"tokens": feature}, None, 10, vocabulary))


def sample(vocabulary: int, count: int = 5):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocabulary, (count, CONTEXT + 1)).astype("int32")
    logits = rng.normal(size=(count, CONTEXT, vocabulary)).astype("float32") * 3
    return tokens, logits, np.array([1, 0, 2, 1, 0.5], "float32")


def nats_and_hits(tokens, logits):
    """Of every predicted token, in float64."""
    logits = logits.astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = tokens[:, 1:]
    nats = -np.take_along_axis(log_probabilities, targets[..., None], -1)[..., 0]
    return nats, logits.argmax(-1) == targets


@pytest.mark.parametrize("jit", [False, True])
def test_loss_and_metrics_are_per_token(jit):
    task = task_of(256)
    tokens, logits, weights = sample(256)
    nats, hits = nats_and_hits(tokens, logits)

    @tf.function(jit_compile=jit)
    def measure(logits, tokens, weights):
        batch = {"tokens": tokens, "sample_weight": weights}
        return *task.loss(logits, batch), task.metric_sums(logits, batch)

    losses, loss_weights, sums = measure(*map(tf.constant, (logits, tokens, weights)))
    np.testing.assert_allclose(losses, nats.sum(1) * weights, rtol=1e-5)
    np.testing.assert_allclose(loss_weights, CONTEXT * weights)
    mean = (nats.mean(1) * weights).sum() / weights.sum()
    assert task.metrics({name: value.numpy() for name, value in sums.items()}) == pytest.approx(
        {
            "accuracy": (hits.mean(1) * weights).sum() / weights.sum(),
            "perplexity": math.exp(mean),
            "bits_per_byte": mean / math.log(2),
        },
        rel=1e-5,
    )


def test_gradient_is_softmax_less_target():
    task = task_of(7)
    tokens, logits, _ = sample(7)
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        losses, _ = task.loss(x, {"tokens": tf.constant(tokens)})
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) - np.eye(7)[tokens[:, 1:]]
    np.testing.assert_allclose(tf.convert_to_tensor(tape.gradient(losses, x)), expected, atol=1e-5)


def test_huge_logits_give_a_finite_loss():
    logits = tf.constant(np.full((1, CONTEXT, 3), [0, 1e5, -1e5], "float32"))
    losses, _ = task_of(3).loss(logits, {"tokens": tf.constant([[0, 1, 1, 1, 1, 1, 0]])})
    np.testing.assert_allclose(losses, [1e5])


def test_bits_per_byte_only_where_tokens_are_bytes():
    sums = {"tokens": np.array([3.0, 1.0, 2.0])}
    assert "bits_per_byte" in task_of(256).metrics(sums)
    assert "bits_per_byte" not in task_of(257).metrics(sums)


def test_perplexity_of_a_diverged_model_is_infinite():
    assert task_of(3).metrics({"tokens": np.array([1e6, 0.0, 1.0])})["perplexity"] == math.inf


def test_inputs_lack_the_last_token():
    task = task_of(7)
    tokens, *_ = sample(7)
    np.testing.assert_array_equal(task.inputs({"tokens": tf.constant(tokens)}), tokens[:, :-1])
    assert task.input_features["tokens"].shape == (CONTEXT,) and task.output_shape == (CONTEXT, 7)


def test_data_without_tokens_is_refused():
    schema = Schema({"image": Feature((8, 8), "float32")}, None, 10, 4)
    with pytest.raises(ValueError, match=r"needs a feature 'tokens' .* the data has 'image' \[8, 8\]"):
        build_task(LanguageModellingTask(), schema)
