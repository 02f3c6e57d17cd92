"""Commands that the documentation says are executed, on real data, all pages after each other in one folder."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from launch.cli import run
from tests.docs.blocks import PAGES, ROOT, Block, Command, blocks_of

EXECUTED = [page for page in PAGES if any(block.is_executed for block in blocks_of(page))]
# What comes first makes the runs that the others look at.
FIRST = [ROOT / "docs" / "start.md"]


def carry_out(command: Command, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Carries out a command in this process, which has TensorFlow already; others in a shell. Returns its output."""
    capsys.readouterr()
    ours = command.ours()
    redirected = re.search(r"\s>\s*(\S+)$", command.text)
    if len(ours) == len(command.parts()) == 1 and ours[0][0] == "phalanx":
        code = run(ours[0][1:])
        out, err = capsys.readouterr()
        if redirected:
            Path(redirected[1]).write_text(out)
            out = ""
        text = out + err
    else:
        done = subprocess.run(["bash", "-c", command.text], capture_output=True, text=True, check=False, timeout=60)
        code, text = done.returncode, done.stdout + done.stderr
    refused = any(line.startswith("phalanx: ") for line in command.output)
    assert (code != 0) == refused, f"{command.place}: {command.text}\nended with {code}\n{text}"
    return text.splitlines()


# A number, and what a time or a count has behind it: 1,174 and 78.2k, 0.7s, 34.7ms and 1m51s.
_AMOUNT = r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?:(?:[kMG]|[mu]?s|[mhd](?:\d+[smh])?)\b)?"


def pattern_of(line: str) -> re.Pattern[str]:
    """A shown line: amounts may be others, spaces more or fewer, and `...` anything."""
    parts = re.split(rf"(\.\.\.|{_AMOUNT}|\s+)", line.strip())
    spare = {"...": ".*"}
    found = [
        r"\s+" if part.isspace() else spare.get(part) or (_AMOUNT if re.fullmatch(_AMOUNT, part) else re.escape(part))
        for part in parts
        if part
    ]
    return re.compile("".join(found))


def missing(shown: list[str], said: list[str]) -> list[str]:
    """Shown lines that were not said, or not in this order."""
    rest = iter([line.strip() for line in said])
    return [
        line
        for line in shown
        if line.strip() not in ("", "...") and not any(pattern_of(line).fullmatch(one) for one in rest)
    ]


def test_a_shown_line_is_found_with_other_numbers_and_in_its_order() -> None:
    said = ["step  100/625  loss 0.8", "done after step 625", "  model  runs/mnist/export/1"]
    assert missing(["step 50/625  loss 1.02", "...", "done after ..."], said) == []
    assert missing(["1,174 samples/s in 0.7s of 1m51s"], ["78.2k samples/s in 34.7ms of 3.4s"]) == []
    assert missing(["7 samples"], ["many samples"]) == ["7 samples"]
    assert missing(["done after step 6", "step 50/625  loss 1.02"], said) == ["step 50/625  loss 1.02"]
    assert missing(["done after stop 625"], said) == ["done after stop 625"]
    assert missing(["  model  runs/other/export/1"], said) == ["  model  runs/other/export/1"]


@pytest.mark.processes
def test_executed_commands_do_and_say_what_the_pages_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    problems: list[str] = []
    for page in [*FIRST, *(page for page in EXECUTED if page not in FIRST)]:
        names: dict[str, object] = {}
        for block in blocks_of(page):
            if block.title is not None:
                Path(block.title).parent.mkdir(parents=True, exist_ok=True)
                Path(block.title).write_text(block.text)
            elif block.is_executed and block.language == "python":
                exec(compile(block.text, block.place, "exec"), names)
            elif block.is_executed:
                problems += problems_of(block, capsys)
    assert not problems, "\n".join(problems)


def problems_of(block: Block, capsys: pytest.CaptureFixture[str]) -> list[str]:
    found: list[str] = []
    for command in block.commands():
        said = carry_out(command, capsys)
        if lines := missing(command.output, said):
            found.append(f"{command.place}: {command.text}\nshown and not said: {lines}\nsaid:\n" + "\n".join(said))
    return found
