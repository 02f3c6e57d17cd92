import numpy as np
import pytest

from trainer.config.model import TransformerLmModel
from trainer.config.task import LanguageModellingTask
from trainer.data.source import Feature, Schema
from trainer.models.decoding import CachedDecoder, WholeWindowDecoder
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

CONTEXT, VOCABULARY = 12, 20
SCHEMA = Schema({"tokens": Feature((CONTEXT + 1,), "int32", num_values=VOCABULARY)}, None, 1, VOCABULARY)


@pytest.fixture(
    scope="module",
    params=[{}, {"kv_heads": 2, "positions": "rotary", "tie_embedding": False}, {"experts": 3, "experts_per_token": 2}],
    ids=["learned", "rotary, grouped", "experts"],
)
def decoders(request):
    config = TransformerLmModel(layers=2, width=16, heads=4, **request.param)
    model = build_model(config, SCHEMA, build_task(LanguageModellingTask(), SCHEMA), seed=1)
    for variable in model.trainable_variables:  # as drawn they are so small that all answers are nearly the same
        variable.assign(5.0 * variable.numpy() + (0.1 if "norm" not in variable.path else 0.0))
    return model, CachedDecoder(model, config), WholeWindowDecoder(model)


def test_the_cache_gives_the_logits_of_the_whole_window_at_every_position(decoders):
    model, cached, whole = decoders
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, CONTEXT)
    exact = model(tokens[None], training=False)[0].numpy()
    assert np.ptp(exact, axis=0).max() > 1
    for decoder in (cached, whole):
        found = [decoder.read(tokens[:3].tolist()), *(decoder.append(int(token)) for token in tokens[3:])]
        np.testing.assert_allclose(np.stack(found), exact[2:], rtol=1e-4, atol=1e-4)


def test_a_new_text_sees_nothing_of_the_one_before(decoders):
    _, cached, _ = decoders
    first = cached.read([3, 1, 4])
    cached.read(list(range(CONTEXT)))
    again = cached.read([3, 1, 4])
    np.testing.assert_array_equal(first, again)
    after = cached.append(7)
    np.testing.assert_allclose(after, cached.read([3, 1, 4, 7]), rtol=1e-4, atol=1e-4)
