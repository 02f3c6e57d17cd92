"""`from trainer import train`: what it takes and what it refuses, without a training."""

from pathlib import Path

import numpy as np
import pytest

import trainer
from launch.config import config_of_mapping, load_config
from launch.exit_code import ExitCode
from launch.notebook.errors import RunError
from launch.notebook.live_curves import shown_live
from launch.notebook.run import Run
from launch.notebook.train import _config, _typed, train

TINY = {"model": {"name": "mlp", "hidden": [4]}, "data": {"name": "digits", "batch_size": 16}, "train.steps": 8}


def test_the_trainer_has_it_and_knows_nothing_of_it() -> None:
    assert trainer.train is train and trainer.Run is Run
    with pytest.raises(AttributeError, match="trian"):
        trainer.trian  # noqa: B018
    assert "launch" not in Path(trainer.__file__).read_text().split('"""', 2)[2]


def test_keywords_without_a_section_are_settings_of_train() -> None:
    assert _typed("steps", 200) == "train.steps=200"
    assert _typed("precision", "mixed_bfloat16") == 'precision="mixed_bfloat16"'
    assert _typed("data.batch_size", np.int64(64)) == "data.batch_size=64"


def test_a_mapping_is_the_config_that_a_file_would_be(tmp_path: Path) -> None:
    file = tmp_path / "mlp.yaml"
    file.write_text("model: {name: mlp, hidden: [4]}\ndata: {name: digits, batch_size: 16}\ntrain: {steps: 8}\n")
    assert config_of_mapping(TINY) == load_config(file)
    assert config_of_mapping(TINY, ["train.epochs=2"]).train.steps is None
    assert config_of_mapping({**TINY, "run.dir": tmp_path}).run.folder == tmp_path / "mlp"


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        ((), {}, "train needs a config or a run to go on with"),
        (("configs/mnst.yaml",), {}, "there is no file configs/mnst.yaml: did you mean configs/mnist.yaml?"),
        (
            ("configs/mnist.yaml",),
            {"batch_size": 64},
            "train.batch_size is not a setting: did you mean data.batch_size?",
        ),
        ((TINY,), {"steps": object}, "steps: .* which a config cannot hold"),
        (({**TINY, "model": {"name": "mpl"}},), {}, "model.name"),
        ((), {"resume": "runs/nothing"}, "runs/nothing"),
        (("configs/mnist.yaml",), {"resume": "runs/mnist"}, "train needs a config or a run to go on with"),
    ],
)
def test_a_wrong_request_is_one_sentence_with_what_to_change(arguments, settings, sentence) -> None:
    with pytest.raises(RunError, match=sentence) as error:
        train(*arguments, **settings)
    assert error.value.code is ExitCode.WRONG_REQUEST
    assert error.value._render_traceback_()[0].startswith("phalanx: ")
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_an_overridden_length_replaces_the_one_of_the_file() -> None:
    config = _config("configs/mnist.yaml", None, [_typed("steps", 200)])
    assert (config.train.steps, config.train.epochs, config.run.name) == (200, None, "mnist")


def test_a_run_that_is_not_there_is_refused() -> None:
    with pytest.raises(RunError, match="there is no folder runs/nothing"):
        Run("nothing")


def test_outside_of_a_notebook_lines_stay_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with shown_live(tmp_path / "run"):
        print("step 1/2  loss 0.5")
    assert capsys.readouterr().out == "step 1/2  loss 0.5\n"
