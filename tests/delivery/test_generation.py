import numpy as np
import pytest

from delivery.generation import Sampling, generated
from trainer.config.model import TransformerLmModel
from trainer.config.task import LanguageModellingTask
from trainer.data.source import Feature, Schema
from trainer.models.decoding import CachedDecoder, WholeWindowDecoder
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

GREEDY = Sampling(temperature=0)


class Countdown:
    """Says that the token after n is n - 1, and remembers what it was asked."""

    context, vocabulary = 4, 10

    def __init__(self):
        self.windows: list[list[int]] = []

    def read(self, tokens):
        assert 1 <= len(tokens) <= self.context
        self.windows.append(list(tokens))
        return np.eye(self.vocabulary, dtype=np.float32)[tokens[-1] - 1]

    def append(self, token):
        assert len(self.windows[-1]) < self.context
        self.windows[-1].append(token)
        return np.eye(self.vocabulary, dtype=np.float32)[token - 1]


def test_text_ends_with_its_document_or_with_its_length():
    assert list(generated(Countdown(), [4], 9, GREEDY)) == [3, 2, 1]
    assert list(generated(Countdown(), [9], 3, GREEDY)) == [8, 7, 6]


def test_a_full_context_goes_on_from_its_second_half():
    decoder = Countdown()
    assert list(generated(decoder, [9, 8], 6, GREEDY)) == [7, 6, 5, 4, 3, 2]
    assert decoder.windows == [[9, 8, 7, 6], [7, 6, 5, 4], [5, 4, 3]]


def test_the_cache_writes_what_the_whole_window_writes_beyond_the_context():
    schema = Schema({"tokens": Feature((17,), "int32", num_values=50)}, None, 1, 50)
    config = TransformerLmModel(layers=2, width=16, heads=4, kv_heads=2)
    model = build_model(config, schema, build_task(LanguageModellingTask(), schema), seed=3)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable.numpy() + 0.3 * rng.normal(size=variable.shape))
    texts = [
        list(generated(decoder, [5, 6, 7], 40, GREEDY))
        for decoder in (CachedDecoder(model, config), WholeWindowDecoder(model))
    ]
    assert texts[0] == texts[1] and len(set(texts[0])) > 3


LOGITS = np.log(np.array([0.1, 0.6, 0.3], np.float32))


def drawn(sampling: Sampling, count: int = 2000) -> np.ndarray:
    return np.bincount([sampling.choose(LOGITS, number) for number in range(count)], minlength=3) / count


def test_draws_follow_the_model_and_the_temperature():
    np.testing.assert_allclose(drawn(Sampling()), [0.1, 0.6, 0.3], atol=0.04)
    squared = np.array([0.01, 0.36, 0.09]) / 0.46
    np.testing.assert_allclose(drawn(Sampling(temperature=0.5)), squared, atol=0.04)
    np.testing.assert_allclose(drawn(Sampling(top_k=2)), [0, 2 / 3, 1 / 3], atol=0.04)
    assert drawn(GREEDY).tolist() == drawn(Sampling(top_k=1)).tolist() == [0, 1, 0]


def test_a_draw_is_a_function_of_seed_and_number():
    one, other = (np.array([Sampling(seed=seed).choose(LOGITS, n) for n in range(50)]) for seed in (1, 2))
    assert (one == [Sampling(seed=1).choose(LOGITS, n) for n in range(50)]).all() and (one != other).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.5}, "--temperature=-0.5 must be a number of at least 0"),
        ({"temperature": float("nan")}, "--temperature=nan must be"),
        ({"top_k": 0}, "--top-k=0 must be at least 1"),
        ({"seed": -1}, "--seed=-1 must be at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


def test_answers_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="not finite: choose an earlier --checkpoint"):
        GREEDY.choose(np.array([0.0, np.nan], np.float32), 0)
