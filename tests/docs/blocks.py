"""The fenced blocks of a page, and the commands in them."""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Said before a block whose commands the tests carry out.
EXECUTED = "<!-- executed -->"
_OURS = ("phalanx", "make")
_ASSIGNMENT = re.compile(r"[A-Z_]+=")
_FENCE = re.compile(r"^( *)(```+|~~~+) *([\w-]*)(.*)$")


@dataclass(frozen=True)
class Command:
    """A line that somebody types, and what the page shows of its output."""

    place: str
    text: str
    output: list[str] = field(default_factory=list)

    def parts(self) -> list[list[str]]:
        """The words of each simple command in it, without redirections: of `cd x && y > z` two, `cd x` and `y`."""
        words = shlex.shlex(self.text, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        parts: list[list[str]] = [[]]
        redirected = False
        for word in words:
            if set(word) <= set("&|;"):
                parts.append([])
                redirected = False
            elif set(word) <= set("<>"):
                redirected = True
            elif not redirected:
                parts[-1].append(word)
        return [part for part in parts if part]

    def ours(self) -> list[list[str]]:
        """Those of them that are programs of ours, without what stands before the name: `["phalanx", "train", ...]`."""
        named = [list(itertools.dropwhile(_ASSIGNMENT.match, part)) for part in self.parts()]
        return [[Path(words[0]).name, *words[1:]] for words in named if words and Path(words[0]).name in _OURS]

    def exported(self) -> dict[str, str]:
        """The variables that it sets for the commands after it."""
        exports = [part[1:] for part in self.parts() if part[0] == "export"]
        return dict(word.split("=", 1) for words in exports for word in words)


@dataclass(frozen=True)
class Block:
    """A fenced block; its title is the name of the file that it shows."""

    page: Path
    line: int
    language: str
    title: str | None
    lines: list[str]
    is_executed: bool

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.line}"

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def commands(self) -> list[Command]:
        """What stands behind the prompts of a console."""
        found: list[Command] = []
        lines = iter(self.lines if self.language == "console" else ())
        for line in lines:
            if line.startswith("$ "):
                typed = line[2:]
                while typed.endswith("\\"):
                    typed = typed[:-1] + next(lines).strip()
                found.append(Command(self.place, typed))
            elif found:
                found[-1].output.append(line)
        return found

    def stray_commands(self) -> list[str]:
        """Commands of ours that do not stand behind a prompt, where no check would see them."""
        if self.language not in ("", "console", "bash", "sh", "shell"):
            return []
        starts = tuple(f"{prompt}{name} " for name in _OURS for prompt in ("", "$ "))
        starts = starts[::2] if self.language == "console" else starts
        shown = [output for command in self.commands() for output in command.output]
        return [line for line in self.lines if line.startswith(starts) and line not in shown]


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in their order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    numbers = iter(range(len(lines)))
    for number in numbers:
        if (opening := _FENCE.match(lines[number])) is None:
            continue
        indent, fence, language, rest = opening.groups()
        inside = []
        for end in numbers:
            if lines[end].strip() == fence:
                break
            inside.append(lines[end].removeprefix(indent))
        title = re.search(r'title="([^"]+)"', rest)
        before = next((line.strip() for line in reversed(lines[:number]) if line.strip()), "")
        yield Block(page, number + 1, language, title[1] if title else None, inside, before == EXECUTED)
