import pytest

from trainer.config.optimizer import AdamWOptimizer
from trainer.optimizers.weight_decay import decays


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("hidden_0/kernel", True),
        ("hidden_0/bias", False),
        ("block_0_attention_norm/gamma", False),
        ("block_0_attention_norm/beta", False),
        ("unbiased/kernel", True),
        ("alphabet_embedding/embeddings", True),
    ],
)
def test_default_patterns_match_whole_parts(path, expected):
    assert decays(path, AdamWOptimizer().no_decay) is expected


def test_a_pattern_may_name_a_whole_path():
    assert not decays("block_1/attention/kernel", [r"block_\d+/.*/kernel"])
    assert decays("block_1/attention/kernel", ["kern"])
