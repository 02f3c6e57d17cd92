import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trainer.intervals.choice import Chosen
from trainer.observe.journal import Journal
from trainer.report import write_report
from trainer.report.reading import read_run

_VOID = {"meta", "link", "br", "img", "input", "hr"}


class _Balance(HTMLParser):
    """Fails on a tag closed out of order; keeps the text that is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.seen.append(data)


def _text(page: Path) -> str:
    parser = _Balance()
    parser.feed(page.read_text())
    assert not parser.open
    return " ".join(" ".join(parser.seen).split())


def test_the_page_tells_what_the_run_did(finished_run: Path):
    page = write_report(finished_run)
    assert page == finished_run / "report.html"
    text = _text(page)
    last = [line for line in read_run(finished_run).evaluations][-1]
    assert f"test accuracy {last['accuracy']:.4f}" in text
    for words in (
        "finished",
        "mlp on mnist_sample · classification · adam at 0.001 · seed 0",
        "and 11h24m paused",
        "resumed (2 times)",
        "7 written, 3 kept",
        "rule sha256 differs from the manifest",
        "tensorflow 2.21.0",
        "learning rate 0.001",
        "Goodput",
    ):
        assert words in text, words


def test_the_page_needs_nothing_from_outside(finished_run: Path):
    content = write_report(finished_run).read_text()
    assert not re.findall(r"(?:src|href)\s*=|@import|url\(|https?://", content)


@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, 0), ({}, 50), ({"nan_from": 1}, 500), ({"nan_from": 300}, 1000), ({"ranks": 5}, 500)],
)
def test_any_run_has_a_page(example_run: Callable, options: dict, steps: int):
    run = example_run(**options)
    run.start()
    run.train(0, steps)
    run.end()
    assert "not finished" in _text(write_report(run.folder))


def test_an_empty_folder_has_a_page(tmp_path: Path):
    assert "Nothing is logged yet." in _text(write_report(tmp_path))


def test_names_from_the_run_are_escaped(example_run: Callable):
    run = example_run(name="a<script>b&c")
    run.start()
    run.train(0, 100)
    run.end("failed", reason="<img src=x>")
    content = write_report(run.folder).read_text()
    assert "<script>b" not in content and "<img" not in content


def test_a_second_report_replaces_the_first_and_leaves_nothing_else(example_run: Callable):
    run = example_run()
    run.start()
    run.train(0, 100)
    first = write_report(run.folder).read_text()
    run.train(100, 200)
    run.end("finished")
    second = write_report(run.folder).read_text()
    assert first != second
    assert not list(run.folder.glob(".report*"))


def test_how_often_the_state_was_saved_is_told_with_the_reason(example_run: Callable):
    run = example_run()
    run.start()
    run.train(0, 50)
    chosen = Chosen("checkpoints", None, 300.0, 0.4, 3.6e6, "patience")
    Journal(run.folder / "journal.jsonl").write("interval_chosen", **chosen.to_record())
    run.end("finished")
    assert "Chosen: checkpoints every 5m00s: one costs 0.4s" in _text(write_report(run.folder))
