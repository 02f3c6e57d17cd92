import re
from pathlib import Path

import pytest

from benchmarks.tpu_check import ZOO
from launch.config import load_config
from launch.config_keys import kind_of
from launch.model_list import EXAMPLES
from launch.run_config import RunConfig
from tests.configs.golden import CONFIGS
from trainer.config.choice import accepted_names

MODELS = [
    names[0]
    for section in kind_of(RunConfig.model_fields["model"]).sections
    if (names := accepted_names(section)[0])  # not those of the user's own
]
PAGES = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path("docs/models").glob("*.md")))


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_trained_by_a_config_listed_by_size_compiled_for_tpus_and_has_a_row_on_a_page(model):
    configs = {path.stem for path in CONFIGS if load_config(path).model.name == model}
    # dcn is compiled on the data of a config of another model.
    compiled = {zoo.config for name, zoo in ZOO.items() if name == model}
    assert configs and model in EXAMPLES and compiled
    rows = re.findall(rf"^\| `{model}` \|.*$", PAGES, re.MULTILINE)
    assert any(f"configs/{config}.yaml" in row for row in rows for config in configs)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_found_from_the_readme_and_from_a_page_of_its_kind(config):
    assert f"(configs/{config.name})" in Path("README.md").read_text(encoding="utf-8")
    assert f"(../../configs/{config.name})" in PAGES
