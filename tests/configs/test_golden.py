import re

import pytest

from launch.config import load_config
from tests.configs.golden import CONFIGS, GOLDEN, resolved


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_resolves_to_its_golden_dump(config):
    golden = (GOLDEN / config.name).read_text(encoding="utf-8")
    assert resolved(config) == golden, "a default or a config changed: if meant, run python -m tests.configs.golden"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_golden_dump_is_a_config_that_repeats_the_run(config):
    assert load_config(GOLDEN / config.name) == load_config(config)


def test_every_config_has_a_dump_and_every_dump_a_config():
    assert [path.name for path in CONFIGS] == sorted(path.name for path in GOLDEN.glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_head_comment_says_command_duration_and_result(config):
    head = config.read_text(encoding="utf-8").split("\n\n")[0]
    assert re.search(rf"^# Command: +phalanx train {config}", head, re.MULTILINE)
    for word in ("Data:", "Duration:", "Result:"):
        assert re.search(rf"^# {word} +\S", head, re.MULTILINE)
