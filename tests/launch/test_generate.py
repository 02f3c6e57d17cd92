from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.cli import run
from launch.exit_code import ExitCode

WALK = "left right left right up down up down. " * 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The runs folder of a model that has seen a few bytes."""
    folder = tmp_path_factory.mktemp("walks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHALANX_CACHE_DIR", str(folder / "cache"))
        (folder / "walk.txt").write_text(WALK)
        (folder / "walk.yaml").write_text(
            f"""
run: {{name: walk, dir: {folder}}}
model: {{name: transformer_lm, layers: 1, width: 16, heads: 2, kv_heads: 1}}
task: {{name: language_modelling}}
data: {{name: text, path: {folder / "walk.txt"}, context: 16}}
train: {{steps: 4, ema: 0.5}}
evaluate: {{every: null}}
export: {{enabled: false}}
"""
        )
        assert run(["train", str(folder / "walk.yaml")]) == ExitCode.DONE
        yield folder


def test_a_run_goes_on_with_a_prompt(trained, capsys):
    texts = []
    for seed in ("1", "1", "2"):
        assert run(["generate", str(trained / "walk"), "--prompt", "left ", "--tokens", "30", "--seed", seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("left ") for text in texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", ""], "--prompt is empty"),
        (["--prompt", "x" * 17], "--prompt has 17 tokens, and the model looks back on data.context=16: shorten it"),
        (["--prompt", "x", "--temperature", "-1"], "--temperature=-1 must be a number of at least 0"),
        (["--prompt", "x", "--top-k", "257"], "--top-k=257 must be at most 256"),
        (["--prompt", "x", "--tokens", "0"], "--tokens"),
        (["--prompt", "x", "--checkpoint", "newest"], "--checkpoint=newest must be last, best or a step"),
        (["--prompt", "x", "--checkpoint", "3"], "has no checkpoint of step 3: there are 4"),
        ([], "--prompt"),
    ],
)
def test_bad_requests_are_refused(trained, capsys, options, message):
    assert run(["generate", str(trained / "walk"), *options]) == ExitCode.WRONG_REQUEST
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [("mnist", "task.name=classification does not predict the next token"), ("synthetic", "has no tokenizer")],
)
def test_runs_without_text_are_refused(tmp_path, capsys, config, message):
    text = Path("tests/configs/golden/mnist.yaml").read_text()
    if config == "synthetic":
        text = """
model: {name: transformer_lm}
task: {name: language_modelling}
data: {name: synthetic, kind: tokens, shape: [8]}
train: {steps: 1}
"""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(text)
    assert run(["generate", str(tmp_path / "run"), "--prompt", "x"]) == ExitCode.WRONG_REQUEST
    assert message in capsys.readouterr().err
