import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.models.attention import CausalAttention, rotate

TIME, WIDTH, HEADS = 7, 12, 3


def queries_keys_values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, TIME, 3 * WIDTH)).astype("float32")


def attention_in_numpy(qkv: np.ndarray) -> np.ndarray:
    head = WIDTH // HEADS
    out = np.zeros((len(qkv), TIME, WIDTH))
    for b in range(len(qkv)):
        for h in range(HEADS):
            q, k, v = (qkv[b, :, i * WIDTH + h * head : i * WIDTH + (h + 1) * head] for i in range(3))
            for t in range(TIME):
                weights = np.exp(k[: t + 1] @ q[t] / np.sqrt(head))
                out[b, t, h * head : (h + 1) * head] = weights @ v[: t + 1] / weights.sum()
    return out


def test_equals_the_definition():
    qkv = queries_keys_values()
    np.testing.assert_allclose(CausalAttention(HEADS)(qkv), attention_in_numpy(qkv), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rotary", [False, True])
def test_a_group_of_heads_shares_the_keys_and_values_of_one(rotary):
    head, group = WIDTH // HEADS, HEADS
    qkv = queries_keys_values()[..., : WIDTH + 2 * head]
    q, k, v = np.split(qkv, [WIDTH, WIDTH + head], axis=-1)
    repeated = np.concatenate([q, np.tile(k, group), np.tile(v, group)], axis=-1)
    shared = CausalAttention(HEADS, rotary, kv_heads=1)(qkv)
    assert shared.shape == (2, TIME, WIDTH)
    np.testing.assert_allclose(shared, CausalAttention(HEADS, rotary)(repeated), rtol=1e-5, atol=1e-6)


def test_neighbouring_heads_make_a_group():
    heads, head = 4, 3
    qkv = np.random.default_rng(0).normal(size=(1, TIME, (heads + 2 * 2) * head)).astype("float32")
    layer = CausalAttention(heads, kv_heads=2)
    _, keys, _ = layer.heads(qkv)
    before = layer(qkv).numpy()
    qkv[..., (heads + 1) * head : (heads + 2) * head] += 1.0 + np.arange(head * TIME).reshape(TIME, head)
    changed = np.abs(layer(qkv).numpy() - before).reshape(TIME, heads, head).max((0, 2)) > 1e-3
    assert keys.shape == (1, 2, TIME, head)
    assert changed.tolist() == [False, False, True, True]


@pytest.mark.parametrize("rotary", [False, True])
def test_later_positions_change_nothing_earlier(rotary):
    layer = CausalAttention(HEADS, rotary)
    one, other = queries_keys_values(), queries_keys_values(1)
    cut = TIME // 2
    other[:, :cut] = one[:, :cut]
    a, b = layer(one).numpy(), layer(other).numpy()
    np.testing.assert_array_equal(a[:, :cut], b[:, :cut])
    assert not np.allclose(a[:, cut:], b[:, cut:])


def test_rotation_keeps_lengths_and_makes_products_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    q, k = (np.tile(rng.normal(size=(1, 1, 1, 8)), (1, 1, TIME, 1)).astype("float32") for _ in range(2))
    turned_q, turned_k = rotate(tf.constant(q)).numpy()[0, 0], rotate(tf.constant(k)).numpy()[0, 0]
    np.testing.assert_allclose(np.linalg.norm(turned_q, axis=-1), np.linalg.norm(q[0, 0], axis=-1), rtol=1e-5)
    products = turned_q @ turned_k.T
    for distance in range(1 - TIME, TIME):
        np.testing.assert_allclose(np.diagonal(products, distance), np.diagonal(products, distance)[0], rtol=1e-4)
    assert np.ptp(products[0]) > 0.1


def test_layer_can_be_saved():
    layer = CausalAttention(HEADS, rotary=True, kv_heads=1, name="attention")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
