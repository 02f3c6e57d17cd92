from pathlib import Path

from trainer.observe.journal import Journal, next_generation, read_journal


def test_events_carry_time_and_generation(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    times = iter((100.5, 101.5))
    assert next_generation(path) == 0
    first = Journal(path, next_generation(path), clock=lambda: next(times))
    first.write("started", pid=7, host="a")
    first.write("checkpoint_saved", step=50, path=Path("checkpoints/step-00000050"))
    assert read_journal(path) == [
        {"time": 100.5, "event": "started", "generation": 0, "pid": 7, "host": "a"},
        {
            "time": 101.5,
            "event": "checkpoint_saved",
            "generation": 0,
            "step": 50,
            "path": "checkpoints/step-00000050",
        },
    ]
    assert next_generation(path) == 1
