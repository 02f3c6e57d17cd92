import pytest

from tests.trainer.sessions import merged, small_config
from trainer.strategies.choice import choose_strategy, with_suggestion

GIB = 2**30


@pytest.mark.parametrize(
    ("change", "workers", "gpus", "name", "why"),
    [
        ({}, None, 0, "one_device", "strategy one_device, because one worker trains on one CPU"),
        ({}, None, 1, "one_device", "strategy one_device, because one worker trains on one GPU"),
        ({}, None, 4, "mirrored", "strategy mirrored, because this machine has 4 GPUs"),
        (
            {"strategy": {"devices": 2}},
            None,
            0,
            "mirrored",
            "strategy mirrored, because strategy.devices=2 says so",
        ),
        ({}, 2, 1, "elastic", "strategy elastic, because there is a group of 2 workers"),
        (
            {},
            2,
            4,
            "multi_worker_mirrored",
            "strategy multi_worker_mirrored, because each of the 2 workers has 4 GPUs",
        ),
        ({"strategy": {"name": "mirrored"}}, None, 0, "mirrored", "strategy.name=mirrored is set"),
    ],
)
def test_the_choice_and_its_reason(change, workers, gpus, name, why):
    choice = choose_strategy(small_config(**change), workers, gpus)
    assert choice.facts == {"name": name, "why": why}
    assert choice.config.devices == change.get("strategy", {}).get("devices")


def test_devices_that_cannot_share_the_batch_are_not_all_taken():
    choice = choose_strategy(small_config(), None, 3)
    assert choice.config.name == "one_device"
    assert choice.why.startswith("strategy one_device, because of 3 GPUs one is used: the number of GPUs=3 must divide")


def test_parameter_servers_are_only_ever_suggested():
    choice = choose_strategy(small_config(), 4, 0)
    assert with_suggestion(choice, GIB, 4 * GIB) == choice
    assert with_suggestion(choice, GIB // 1024, GIB // 1024) == choice, "small tables cost nothing"
    suggested = with_suggestion(choice, 3 * GIB, 4 * GIB)
    assert suggested.config.name == "elastic"
    assert "75% of the weights are embeddings" in suggested.why and "parameter_server" in suggested.why
    alone = choose_strategy(small_config(), None, 0)
    assert with_suggestion(alone, 3 * GIB, 4 * GIB) == alone
    fixed = choose_strategy(small_config(**merged({}, {"strategy": {"name": "multi_worker_mirrored"}})), 4, 0)
    assert with_suggestion(fixed, 3 * GIB, 4 * GIB) == fixed
