"""The JSON log without a server: W3C's rules, a file that cannot be written, what is left out of stack traces."""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from delivery.serving import line_writer
from delivery.serving.json_log import MOST_TRACES, JsonLog, JsonLogError
from delivery.serving.line_writer import LineWriter
from delivery.serving.settings import ServingSettings
from delivery.serving.trace_context import NO_TRACE, continued, read_traceparent

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def wait_until(reached: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < end, "not reached in 20 s"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-02", False),
        (f"00-{TRACE}-{PARENT}-09", True),
        (f" 00-{TRACE}-{PARENT}-01\t", True),
        # A later version may say more, behind a hyphen.
        (f"cc-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like", True),
    ],
)
def test_a_valid_traceparent_is_continued_with_a_span_of_its_own(header, sampled):
    trace = continued([header])
    assert (trace.id, trace.parent, trace.sampled) == (TRACE, PARENT, sampled)
    assert trace.span not in ("", PARENT) and continued([header]).span != trace.span
    assert trace.traceparent == f"00-{TRACE}-{trace.span}-{'01' if sampled else '00'}"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        [f"00-{TRACE}-{PARENT}-01"] * 2,
        [f"ff-{TRACE}-{PARENT}-01"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE.upper()}-{PARENT}-01"],
        [f"00-{TRACE[:-1]}-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT}-1"],
        [f"00-{TRACE}-{PARENT}-01-more"],
        [f"00-{TRACE}-{PARENT}-01-"],
        [f"cc-{TRACE}-{PARENT}-01.more"],
        [f"00-{TRACE}-{PARENT}-0x"],
        [f"00-{TRACE}-{PARENT}-01\n"],
    ],
)
def test_an_invalid_traceparent_is_ignored_and_a_new_trace_begun(headers):
    assert read_traceparent(headers) == NO_TRACE
    trace = continued(headers)
    assert read_traceparent([trace.traceparent]).id == trace.id != TRACE
    assert trace.parent == ""


def test_lines_are_written_by_the_time_it_is_closed_and_the_file_is_private(tmp_path: Path):
    path = tmp_path / "log"
    writer = LineWriter(path, lambda lost: "lost\n")
    lines = [f"{number}\n" for number in range(10_000)]
    for line in lines:
        writer.write(line)
    writer.close()
    assert path.read_bytes() == "".join(lines).encode()
    assert path.stat().st_mode & 0o077 == 0


def test_a_full_disk_is_said_once_and_what_is_missing_once_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(line_writer, "_LOOKS_S", 0.0)
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    writer = LineWriter(path, lambda lost: f"lost {lost}\n")
    writer.write("one\n")
    wait_until(lambda: caplog.records)
    writer.write("two\n")
    wait_until(lambda: writer._lost == 2)
    roomy = tmp_path / "roomy"
    roomy.touch()
    path.unlink()
    path.symlink_to(roomy)
    writer.write("three\n")
    wait_until(lambda: roomy.read_bytes().endswith(b"three\n"))
    writer.close()
    assert roomy.read_bytes() == b"lost 2\nthree\n"
    (said,) = caplog.messages
    assert "No space left on device" in said and str(path) in said


def test_a_line_that_was_written_in_part_is_ended_before_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, room, really = tmp_path / "log", [6], os.write

    def write(file: int, content: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = really(file, content[: room[0]])
        room[0] -= written
        return written

    writer = LineWriter(path, lambda lost: f"lost {lost}\n")
    monkeypatch.setattr(line_writer.os, "write", write)
    for line in ("one\n", "two\n", "three\n"):
        writer.write(line)
    wait_until(lambda: writer._lost == 1)
    assert path.read_bytes() == b"one\ntw"
    writer.write("four\n")
    wait_until(lambda: writer._lost == 2)
    room[0] = 1 << 20
    writer.write("five\n")
    writer.close()
    assert path.read_bytes() == b"one\ntwo\nlost 2\nfive\n"


def test_lines_that_nobody_takes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(line_writer, "_MOST_WAITING", 10)
    monkeypatch.setattr(line_writer, "_GATHERS_S", 30.0)
    path = tmp_path / "log"
    writer = LineWriter(path, lambda lost: f"lost {lost}\n")
    for _ in range(4):
        writer.write("line\n")
    writer.close()
    assert path.read_bytes() == b"lost 2\nline\nline\n"


def test_a_file_that_is_moved_away_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(line_writer, "_LOOKS_S", 0.0)
    path, moved = tmp_path / "log", tmp_path / "log.1"
    writer = LineWriter(path, lambda lost: "lost\n")
    writer.write("one\n")
    wait_until(path.read_bytes)
    path.rename(moved)
    writer.write("two\n")
    writer.close()
    assert (moved.read_bytes(), path.read_bytes()) == (b"one\n", b"two\n")


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_stack_says_where_and_not_what_a_client_sent(tmp_path: Path):
    path = tmp_path / "log"
    json_log = JsonLog(path, "my-project")
    with json_log.collecting():
        try:
            float("-".join(("a", "secret")))  # the line itself is shown
        except ValueError:
            facts = {"model": "double", "version": 3, "trace": TRACE}
            logging.getLogger("phalanx.serving").exception("request failed", extra=facts)
    logging.getLogger("phalanx.serving").error("nobody collects this any more")
    (line,) = read(path)
    assert line["severity"] == "ERROR" and line["message"] == "request failed"
    assert line["logging.googleapis.com/labels"] == {"model": "double", "version": "3"}
    assert line["logging.googleapis.com/trace"] == f"projects/my-project/traces/{TRACE}"
    assert "test_json_log.py" in line["stack_trace"] and line["stack_trace"].endswith("ValueError")
    assert "a-secret" not in path.read_text()


def test_a_batch_names_a_bounded_number_of_traces_each_once(tmp_path: Path):
    path = tmp_path / "log"
    json_log = JsonLog(path)
    ids = [f"{number:032x}" for number in range(1, MOST_TRACES + 51)]
    with json_log.collecting():
        json_log.batch("double", 1, 400, 0.01, ["", *ids, *ids])
    (line,) = read(path)
    assert line["requests"] == MOST_TRACES + 50 and line["traces"] == ids[:MOST_TRACES]


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path):
    given = {"models": [{"name": "double", "path": tmp_path}], "trust": {"allow_unsigned": True}}
    for more, message in [
        ({"cloud_project": "my-project"}, "add --json-log"),
        ({"cloud_project": "My Project", "json_log": "-"}, "pattern"),
        ({"json_log": tmp_path / "none" / "log"}, "in no folder"),
        ({"json_log": tmp_path / "log", "audit_log": tmp_path / "log"}, "two files"),
    ]:
        with pytest.raises(ValidationError, match=message):
            ServingSettings.model_validate({**given, **more})
    ServingSettings.model_validate({**given, "json_log": "-", "cloud_project": "example.com:my-project"})
    with pytest.raises(JsonLogError, match="Is a directory"):
        JsonLog(tmp_path)
