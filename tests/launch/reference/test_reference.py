"""The pages that are written from the program itself."""

import re

import typer

from launch.cli import app
from launch.config_schema import json_schema
from launch.reference.commands import commands_page
from launch.reference.settings import settings_page
from trainer.config.train import TrainConfig


def row(page: str, name: str) -> list[str]:
    (found,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", found)[1:-1]]


def test_every_setting_of_a_section_has_a_row() -> None:
    page = settings_page(json_schema())
    for name in TrainConfig.model_fields:
        assert len(row(page, f"train.{name}")) == 4
    assert row(page, "train.seed")[1:3] == ["whole number ≥ 0 and < 4,294,967,296", "`0`"]
    assert row(page, "train.steps")[1] == "whole number > 0, or `null`"
    assert row(page, "precision")[1] == "`float32`, `mixed_bfloat16`, `mixed_float16`"


def test_a_section_that_is_chosen_by_name_has_a_heading_for_each_name() -> None:
    page = settings_page(json_schema())
    for name in ("mlp", "cnn", "package.module:function"):
        assert f"\n### model.name: {name}\n" in page
    assert "\n### data.name: tfds:DATASET\n" in page
    assert "`data.sources.data` has the settings of [data](#data)." in page
    # What all variants share is said once.
    assert page.count("| `data.batch_size` |") == 1


def test_every_command_has_its_arguments_and_options() -> None:
    page = commands_page(app)
    for command in ("train", "resume", "tpu create", "data inspect", "repository publish"):
        assert re.search(rf"^##+ phalanx {command}$", page, re.MULTILINE)
    train = page[page.index("## phalanx train") : page.index("## phalanx resume")]
    assert row(train, "--detach")[1].startswith("Go on without this terminal")
    assert "--kept" not in page, "hidden options are nobody's business"


def test_a_pipe_in_a_help_text_does_not_end_its_cell() -> None:
    small = typer.Typer()

    @small.callback()
    def program() -> None:
        """Nothing."""

    @small.command("one")
    def one(mode: str = typer.Option("a", "--mode", help="a | b")) -> None:
        """Do it.

        At once.
        """

    page = commands_page(small)
    assert row(page, "--mode <str>")[1].startswith(r"a \| b")
    assert "Do it.\n\nAt once.\n" in page
