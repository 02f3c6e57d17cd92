"""How much arithmetic a training step is, and how much this machine can do."""

from __future__ import annotations

import time

from benchmarks.single_models import arrays, keras_model

_SIZE = 2048


def matmul_peak(repeats: int = 8) -> float:
    """float32 FLOP/s of a large matrix product, the best of some."""
    import tensorflow as tf

    a = tf.random.normal([_SIZE, _SIZE])
    best = 0.0
    for _ in range(repeats):
        begin = time.perf_counter()
        tf.matmul(a, a).numpy()
        best = max(best, 2 * _SIZE**3 / (time.perf_counter() - begin))
    return best


def flops_per_sample(model: str) -> float:
    """FLOPs of the forward pass and of the gradients, as TensorFlow's profiler counts them in the graph of one sample.

    Counted, not taken as three forward passes: the first layer needs no gradient of its input, which is a third of
    the work of an MLP.
    """
    import keras
    import tensorflow as tf
    from tensorflow.python.profiler import model_analyzer, option_builder

    network, (x, y) = keras_model(model), arrays(model)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    weights = [v.value for v in network.trainable_variables]

    @tf.function
    def gradients(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, network(x, training=True))
        return tape.gradient(loss, weights)

    graph = gradients.get_concrete_function(*(tf.TensorSpec([1, *a.shape[1:]], a.dtype) for a in (x, y))).graph
    shown = option_builder.ProfileOptionBuilder(option_builder.ProfileOptionBuilder.float_operation())
    return float(model_analyzer.profile(graph, options=shown.with_empty_output().build()).total_float_ops)
