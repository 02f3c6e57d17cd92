"""Every command that the documentation gives is one that the program takes, with settings that exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from launch.cli import app
from launch.config import ConfigError, load_config
from tests.docs.blocks import PAGES, ROOT, Block, Command, blocks_of


def parsed(words: list[str]) -> dict[str, Any]:
    """The arguments and options of a command, as the command line itself reads them; nothing is carried out."""
    program: Any = typer.main.get_command(app)
    name, context = "phalanx", None
    while True:
        context = program.make_context(name, words, parent=context)
        if not hasattr(program, "commands"):
            return context.params
        name, program, words = program.resolve_command(context, [*context._protected_args, *context.args])


def config_of(block: Block, name: str, folder: Path) -> Path:
    """A config of the repository, or one that the page shows."""
    if (shown := {one.title: one for one in blocks_of(block.page)}.get(name)) is not None:
        (folder / Path(name).name).write_text(shown.text)
        return folder / Path(name).name
    return ROOT / name


def check(block: Block, command: Command, folder: Path) -> None:
    for words in command.ours():
        for word in words:
            if re.match(r"(configs|launch)/[\w/.-]+$", word) and not config_of(block, word, folder).exists():
                raise ValueError(f"there is no {word}")
        if words[0] == "make":
            targets = re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert [word for word in words[1:] if "=" not in word and word not in targets] == []
            continue
        given = parsed(words[1:])
        config, overrides = given.get("config"), given.get("overrides")
        if config is None and overrides and "run" in given:  # of a run, whose config has its name
            config = f"configs/{Path(given['run']).name}.yaml"
        if config is not None:
            try:
                load_config(config_of(block, str(config), folder), overrides or ())
            except ConfigError as error:
                said = [f"phalanx: {line}" for line in str(error).splitlines()]
                if said != command.output:
                    raise


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_that_the_program_takes(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    problems = []
    for block in blocks_of(page):
        problems += [f"{block.place}: write {line!r} as `$ ` in a block console" for line in block.stray_commands()]
        for command in block.commands():
            try:
                for name, value in command.exported().items():
                    monkeypatch.setenv(name, value)
                check(block, command, tmp_path)
            except Exception as error:
                said = getattr(error, "format_message", lambda error=error: str(error))()
                problems.append(f"{block.place}: {command.text}\n  {type(error).__name__}: {said}")
    assert not problems, "\n".join(problems)


def test_the_documentation_gives_commands() -> None:
    found = [words for page in PAGES for block in blocks_of(page) for one in block.commands() for words in one.ours()]
    assert len(found) > 60 and {"phalanx", "make"} == {words[0] for words in found}


WRONG = """
```console
$ phalanx train configs/mnist.yaml {}
```
"""


@pytest.mark.parametrize("words", ["train.stpes=1", "--detatch", "cluster.workers=0"])
def test_a_command_that_the_program_refuses_is_found(tmp_path: Path, words: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(WRONG.format(words))
    (block,) = blocks_of(page)
    (command,) = block.commands()
    assert command.text == f"phalanx train configs/mnist.yaml {words}"
    with pytest.raises(Exception, match=re.escape(shlex.split(words)[0].split("=")[0])):
        check(block, command, tmp_path)


@pytest.mark.parametrize("fence", ["```", "```bash", "```console"])
def test_a_command_outside_of_a_prompt_is_found(tmp_path: Path, fence: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{fence}\nphalanx status runs/mnist\n```\n")
    (block,) = blocks_of(page)
    assert block.stray_commands() == ["phalanx status runs/mnist"]
