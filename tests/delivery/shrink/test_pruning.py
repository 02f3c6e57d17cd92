import numpy as np
import pytest

from delivery.shrink.pruning import PruningRefused, check_prunable, prune
from trainer.config.model import CnnModel, MlpModel, ResnetModel, TransformerLmModel
from trainer.config.task import ClassificationTask, LanguageModellingTask
from trainer.data.source import Feature, Schema
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task


def _images(config):
    schema = Schema({"image": Feature((8, 8, 1), "float32"), "label": Feature((), "int32")}, "label", 10, 3)
    task = build_task(ClassificationTask(), schema)
    samples = {"image": np.random.default_rng(0).uniform(0, 1, (16, 8, 8, 1)).astype(np.float32)}
    return schema, task, samples


def _pruned(config, schema, task, samples, rate, silence=()):
    """Prunes a model in which some units do nothing; gives the answers of both models."""
    model = build_model(config, schema, task, seed=0)
    for layer, units in silence:
        kernel, bias = model.get_layer(layer).get_weights()
        kernel[..., units], bias[units] = 0, 0
        model.get_layer(layer).set_weights([kernel, bias])
    arrays = {variable.path: variable.numpy() for variable in model.variables}
    pruned = prune(model, config, arrays, samples, rate)
    smaller = build_model(pruned.model, schema, task)
    for variable in smaller.variables:
        if not variable.path.endswith("seed_generator_state"):
            variable.assign(pruned.arrays[variable.path])
    batch = next(iter(samples.values()))
    return pruned, np.asarray(model(batch, training=False)), np.asarray(smaller(batch, training=False))


def test_units_that_do_nothing_go_first_and_nothing_changes():
    config = MlpModel(hidden=(8, 6), dropout=0.4)
    silence = [("hidden_0", [0, 2, 5, 7]), ("hidden_1", [1, 2, 4])]
    pruned, before, after = _pruned(config, *_images(config), 0.5, silence)
    assert pruned.model.hidden == (4, 3) and 0 < pruned.model.dropout < 0.4
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_filters_are_followed_through_flattening():
    config = CnnModel(name="cnn", filters=(4, 6), dense=8)
    silence = [("convolution_0", [1, 3]), ("convolution_1", [0, 2, 5]), ("hidden", [0, 1, 2, 3])]
    pruned, before, after = _pruned(config, *_images(config), 0.5, silence)
    assert pruned.model.filters == (2, 3) and pruned.model.dense == 4
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_feed_forward_of_a_transformer():
    schema = Schema({"tokens": Feature((13,), "int32", num_values=30)}, None, 100, 30)
    task = build_task(LanguageModellingTask(name="language_modelling"), schema)
    samples = {"tokens": np.random.default_rng(0).integers(0, 30, (8, 12)).astype(np.int32)}
    config = TransformerLmModel(name="transformer_lm", layers=2, width=16, heads=2, feed_forward=8)
    silence = [(f"block_{i}_feed_forward_hidden", [0, 3, 6, 7]) for i in range(2)]
    pruned, before, after = _pruned(config, schema, task, samples, 0.5, silence)
    assert pruned.model.feed_forward == 4
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_a_model_without_known_units_is_refused():
    with pytest.raises(PruningRefused, match="resnet"):
        check_prunable(ResnetModel(name="resnet"))
