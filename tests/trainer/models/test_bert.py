import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.models.example_data import IMAGES
from trainer.config.sequence_models import BertModel
from trainer.config.task import ClassificationTask, MaskedLmTask
from trainer.data.source import Feature, Schema
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

CONTEXT, VOCABULARY = 10, 21
TOKENS = Feature((CONTEXT,), "int32", num_values=VOCABULARY)
HIDDEN = Schema({"tokens": TOKENS, "originals": Feature((CONTEXT,), "int32")}, "originals", 10, VOCABULARY)
CLASSES = Schema({"tokens": TOKENS, "label": Feature((), "int32")}, "label", 10, 3)
CONFIG = BertModel(layers=2, width=16, heads=2, dropout=0.0)
WINDOW = np.array([[5, 3, 20, 7, 8, 9, 0, 4, 4, 2]], np.int32)


@pytest.fixture(scope="module")
def filling():
    task = build_task(MaskedLmTask(), HIDDEN)
    model = build_model(CONFIG, HIDDEN, task, seed=0)
    embeddings = model.get_layer("token_embedding").embeddings
    embeddings.assign(20.0 * embeddings.numpy())
    return model, task


@pytest.fixture(scope="module")
def classifying():
    task = build_task(ClassificationTask(), CLASSES)
    return build_model(CONFIG, CLASSES, task, seed=0), task


def test_every_token_sees_both_sides(filling):
    model, task = filling
    before = model(WINDOW, training=False).numpy()
    assert before.shape == (1, *task.output_shape) == (1, CONTEXT, VOCABULARY)
    for place in (0, 9):
        changed = WINDOW.copy()
        changed[0, place] = 11
        assert (np.abs(model(changed, training=False).numpy() - before).max(-1) > 1e-5).all()


def test_what_stands_behind_the_text_does_not_change_its_class(classifying):
    model, _ = classifying
    short = np.array([[5, 3, 20, 7, 0, 0, 0, 0, 0, 0]], np.int32)
    before = model(short, training=False).numpy()
    positions = model.get_layer("position_embedding").positions
    kept = positions.numpy()
    positions.assign(np.where(np.arange(CONTEXT)[:, None] < 4, kept, kept + 5.0))
    np.testing.assert_allclose(model(short, training=False), before, rtol=1e-4, atol=1e-5)
    assert np.abs(model(WINDOW, training=False).numpy()).max() < 100
    positions.assign(kept)


def test_a_classifier_begins_with_what_filling_in_has_learned(filling, classifying):
    learned = {v.path: v.shape for v in filling[0].trainable_variables}
    wanted = {v.path: v.shape for v in classifying[0].trainable_variables}
    assert {path for path in wanted if wanted[path] != learned.get(path)} == {"output/kernel", "output/bias"}


def test_loss_and_metrics_count_what_is_hidden(filling):
    _, task = filling
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, CONTEXT, VOCABULARY)).astype("float32") * 2
    originals = np.where(rng.random((3, CONTEXT)) < 0.4, rng.integers(1, 20, (3, CONTEXT)), -1).astype("int32")
    weights = np.array([1, 2, 0], "float32")
    batch = {"tokens": WINDOW.repeat(3, 0), "originals": originals, "sample_weight": weights}
    exact = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, np.maximum(originals, 0)[..., None], -1)[..., 0]
    hidden = (originals >= 0) * weights[:, None]
    loss, count = task.loss(tf.constant(logits), batch)
    np.testing.assert_allclose(loss, (exact * hidden).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(count, hidden.sum(-1))
    metrics = task.metrics({name: sums.numpy() for name, sums in task.metric_sums(tf.constant(logits), batch).items()})
    assert metrics["perplexity"] == pytest.approx(np.exp((exact * hidden).sum() / hidden.sum()), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(((logits.argmax(-1) == originals) * hidden).sum() / hidden.sum())


@pytest.mark.parametrize("kind", ["filling", "classifying"])
def test_forward_and_backward_compile(kind, request):
    model, task = request.getfixturevalue(kind)
    batch = {"tokens": WINDOW, "originals": WINDOW, "label": np.array([1])}
    trainable = [v.value for v in model.trainable_variables]

    @tf.function(jit_compile=True)
    def gradients(trainable):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            others = [v.value for v in model.non_trainable_variables]
            outputs = model.stateless_call(trainable, others, task.inputs(batch), training=True)[0]
            loss = tf.reduce_sum(task.loss(outputs, batch)[0])
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, trainable)]

    assert all(np.isfinite(g).all() for g in gradients(trainable))


def test_data_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"model\.name=bert reads a sequence of tokens, but .*data\.masked"):
        build_model(CONFIG, IMAGES, build_task(ClassificationTask(), IMAGES))
    with pytest.raises(ValueError, match=r"task\.name=masked_lm needs the hidden token of each position"):
        build_task(MaskedLmTask(), IMAGES)
