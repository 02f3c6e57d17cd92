import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from launch.config import load_config
from launch.run_watch import RunWatch, start_watching, summarize
from tests.trainer.goodput.journals import EPOCH, Story
from trainer.observe.journal import Journal, read_journal
from trainer.observe.tail import Tail
from trainer.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.traces.mkdir()
    return folder


def append(path, records) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def test_a_watch_takes_in_what_the_files_gain(folder):
    story = Story()
    append(folder.journal, story.records)
    watch = RunWatch(folder, clock=lambda: EPOCH + 12)
    told = len(story.records)
    story.begin()
    # Written before the journal reaches as far: it waits until it can be charged to the step it belongs to.
    append(folder.trace(1), [{"name": "data", "start": EPOCH + 5, "duration": 0.5, "rank": 1}])
    assert watch.account(until_now=False).seconds.get("data_wait") is None
    append(folder.journal, story.records[told:])
    with folder.journal.open("a") as file:
        file.write('{"event": "torn')
    account = watch.account()
    assert account.steps == 80
    assert account.wall_s == pytest.approx(12, abs=0.05)
    assert account.seconds["data_wait"] == pytest.approx(0.5)


def test_earlier_launches_count_as_well(folder):
    story = Story()
    story.begin()
    append(folder.journal, story.records)
    append(folder.journal, Story(at=50.0).records)
    assert [failure.cause for failure in RunWatch(folder).account(until_now=False).failures] == ["launcher"]


def scalars_of(folder: RunFolder) -> dict[str, float]:
    events = EventAccumulator(str(folder.tensorboard / "goodput")).Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}


def test_the_account_is_the_last_word_of_the_journal_and_in_tensorboard(folder, tmp_path):
    config = load_config("configs/mnist.yaml", [f"run.dir={tmp_path}"])
    story = Story()
    story.begin()
    story.exit(11.0, "w2", signal=9)
    append(folder.journal, story.records)
    watching, journal = start_watching(config, folder, print), Journal(folder.journal)
    text = watching.close(journal)
    journal.close()
    assert text.startswith("goodput 72.7% of 11s; 1 failure cost")
    last = read_journal(folder.journal)[-1]
    assert last["event"] == "goodput" and last["failures"][0]["worker"] == "w2"
    assert sum(last["seconds"].values()) == pytest.approx(last["wall_s"])
    shown = scalars_of(folder)
    assert shown["goodput/share"] == pytest.approx(last["goodput"])
    assert shown["goodput/failures"] == 1
    # To be said again, it must not count as a part of the run.
    assert RunWatch(folder).account(until_now=False).wall_s == pytest.approx(last["wall_s"])


def test_a_process_alone_says_it_too(folder, tmp_path):
    config = load_config("configs/mnist.yaml", [f"run.dir={tmp_path}"])
    journal = [{"time": 12.0, "event": "started", "step": 0}, {"time": 20.0, "event": "finished", "step": 9}]
    append(folder.journal, [{**record, "generation": 3} for record in journal])
    append(folder.trace(0), [{"name": "startup", "start": 10.0, "duration": 2.0}])
    append(folder.trace(0), [{"name": "step", "start": 12.0, "duration": 7.0, "step": 0}])
    assert summarize(config, folder) == "goodput 70.0% of 10s (startup 2.0s, checkpoint 1.0s), no failures"
    assert read_journal(folder.journal)[-1]["generation"] == 3
    assert scalars_of(folder)["goodput/startup_s"] == 2


def test_a_tail_reads_whole_lines_once_and_begins_again_with_a_shorter_file(tmp_path):
    tail = Tail(tmp_path / "lines.jsonl")
    assert tail.read() == []
    tail.path.write_text('{"a": 1}\n{"a": ')
    assert tail.read() == [{"a": 1}]
    append_text = tail.path.open("a")
    append_text.write("2}\n")
    append_text.close()
    assert tail.read() == [{"a": 2}]
    assert tail.read() == []
    tail.path.write_text('{"a": 3}\n')
    assert tail.read() == [{"a": 3}]
