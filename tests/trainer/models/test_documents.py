import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.models.example_data import batch_of
from trainer.config.model import TransformerLmModel
from trainer.config.task import LanguageModellingTask
from trainer.data.source import Feature, Schema
from trainer.models.documents import DocumentOfToken, PositionInDocument
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

CONTEXT, VOCABULARY = 12, 20
PACKED = Schema({"tokens": Feature((CONTEXT + 1,), "int32", num_values=VOCABULARY, separator=0)}, None, 1, VOCABULARY)
FIRST, SECOND = [3, 1, 4, 1, 0], [5, 9, 2, 6, 5]
TOKENS = np.array([[*FIRST, *SECOND, 0, 0]])


def test_documents_are_numbered_and_positions_begin_again():
    documents = DocumentOfToken(0)(TOKENS)
    assert documents.numpy().tolist() == [[0] * 5 + [1] * 6 + [2]]
    assert PositionInDocument()(documents).numpy().tolist() == [[*range(5), *range(6), 0]]


@pytest.fixture(scope="module", params=["learned", "rotary"])
def models(request):
    """The same weights for several documents in a window, and for one."""
    config = TransformerLmModel(layers=2, width=16, heads=4, kv_heads=2, positions=request.param)
    task = LanguageModellingTask()
    feature = Feature((CONTEXT + 1,), "int32", num_values=VOCABULARY)
    alone = Schema({"tokens": feature}, None, 1, VOCABULARY)
    packed, single = (build_model(config, schema, build_task(task, schema), seed=0) for schema in (PACKED, alone))
    for variable, same in zip(packed.trainable_variables, single.trainable_variables, strict=True):
        assert variable.path == same.path
        variable.assign(same.numpy() * 10)
        same.assign(variable.numpy())
    return packed, single


def test_no_token_attends_to_another_document(models):
    packed, _ = models
    exact = packed(TOKENS, training=False).numpy()
    for place in range(4):  # of the first document; its end stays one
        changed = TOKENS.copy()
        changed[0, place] = 7 + changed[0, place]
        found = packed(changed, training=False).numpy()
        np.testing.assert_array_equal(found[0, 5:], exact[0, 5:])
        assert np.abs(found[0, place] - exact[0, place]).max() > 1e-3


def test_a_document_reads_as_if_it_were_alone(models):
    packed, single = models
    found = packed(TOKENS, training=False).numpy()[0]
    for document, begin in ((FIRST, 0), (SECOND, 5)):
        alone = single(np.array([document + [0] * (CONTEXT - len(document))]), training=False).numpy()[0]
        np.testing.assert_allclose(found[begin : begin + 5], alone[:5], rtol=1e-4, atol=1e-5)


def test_what_follows_the_end_of_a_document_is_not_predicted(models):
    packed, _ = models
    task = build_task(LanguageModellingTask(), PACKED)
    tokens = np.array([[*FIRST, *SECOND, 0, 0, 0]])
    outputs = packed(tokens[:, :-1], training=False)
    losses = -keras.ops.log_softmax(outputs)[0].numpy()[np.arange(CONTEXT), tokens[0, 1:]]
    is_predicted = tokens[0, :-1] != 0
    loss, weight = task.loss(outputs, {"tokens": tokens})
    assert weight.numpy().tolist() == [9] and is_predicted.sum() == 9
    np.testing.assert_allclose(loss, [losses[is_predicted].sum()], rtol=1e-5)
    sums = task.metric_sums(outputs, {"tokens": tokens})
    metrics = task.metrics({name: values.numpy() for name, values in sums.items()})
    assert metrics["perplexity"] == pytest.approx(np.exp(losses[is_predicted].mean()), rel=1e-5)


def test_it_compiles(models):
    packed, _ = models
    task, batch = build_task(LanguageModellingTask(), PACKED), batch_of(PACKED)
    trainable = [v.value for v in packed.trainable_variables]

    @tf.function(jit_compile=True)
    def gradients(trainable):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            others = [v.value for v in packed.non_trainable_variables]
            outputs = packed.stateless_call(trainable, others, task.inputs(batch), training=True)[0]
            loss = tf.reduce_sum(task.loss(outputs, batch)[0])
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, trainable)]

    assert all(np.isfinite(g).all() and np.any(g) for g in gradients(trainable))
