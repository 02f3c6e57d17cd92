"""Every command as Markdown, from the command line's own definition."""

from collections.abc import Iterator
from typing import Any

import typer

from launch.reference.table import table


def commands_page(app: typer.Typer) -> str:
    """The page of all commands with their arguments and options.

    Args:
        app: the program.
    """
    program: Any = typer.main.get_command(app)
    lines = ["# Commands", "", _INTRODUCTION, ""]
    for name, command in program.commands.items():
        lines += _command(f"phalanx {name}", command, 2)
    return "\n".join(lines).rstrip() + "\n"


_INTRODUCTION = """\
All commands, written from the program itself: `phalanx COMMAND --help` says the same. `--debug`, before the command or
after it, shows the stack trace of an error.

| exit code | means |
|---|---|
| 0 | done |
| 1 | the run failed |
| 2 | the request was wrong; nothing was started |
| 3 | no resources: memory, devices, hosts, quota |
| 130 | stopped, with the state saved |"""


def _command(path: str, command: Any, level: int) -> Iterator[str]:
    if command.hidden:
        return
    yield from [f"{'#' * level} {path}", ""]
    context = command.make_context(path, [], resilient_parsing=True)
    yield from ["```text", command.get_usage(context).removeprefix("Usage: ").strip(), "```", ""]
    if command.help:
        yield from [_markdown(command.help), ""]
    rows = [record for one in command.params if (record := one.get_help_record(context))]
    rows = [(f"`{names}`", meaning) for names, meaning in rows if names != "--help"]
    if rows:
        yield from [*table(("", ""), rows), ""]
    for name, inner in getattr(command, "commands", {}).items():
        yield from _command(f"{path} {name}", inner, level + 1)


def _markdown(text: str) -> str:
    """A help text with its paragraphs."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
