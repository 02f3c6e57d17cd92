"""The arithmetic and the order of turns; workers of a few lines stand in for the trainings, which take seconds."""

import sys
from pathlib import Path

import pytest

from benchmarks.single import (
    PHALANX,
    PLAIN,
    contenders_of,
    finalists,
    main,
    summarise,
    table_of,
    take_turns,
    targets_of,
)
from benchmarks.single_turns import Contender


def turns(*speeds: float, **more: float) -> list[dict[str, float]]:
    return [{"samples_per_s": speed, **more} for speed in speeds]


MEASURED = {
    PHALANX: turns(100.0, 60.0, 110.0, data_wait=0.01),
    PLAIN: turns(40.0, 20.0, 50.0),
    "loop": turns(90.0, 50.0, 100.0),
    "keras fit": turns(10.0, 300.0, 10.0),
}
CHECKPOINT_TURNS = [
    {"samples_per_s": speed, "checkpoints": i % 2 == 0}
    for i, speed in enumerate([99.0, 110.0, 96.0, 100.0, 95.0, 100.0])
]


def test_a_ratio_is_taken_within_each_round_against_the_contender_with_the_best_median():
    result = summarise([MEASURED], CHECKPOINT_TURNS)
    assert result["samples_per_s"] == {PHALANX: 100.0, PLAIN: 40.0, "loop": 90.0, "keras fit": 10.0}
    assert result["best"] == "loop"
    assert result["vs_best"] == pytest.approx(100 / 90)
    assert result["vs_plain_fit"] == pytest.approx(100 / 40)


def test_a_figure_is_the_median_over_the_starts_and_the_fastest_are_started_again():
    assert finalists(MEASURED) == (PHALANX, PLAIN, "loop", "keras fit")
    again = {PHALANX: turns(120.0, data_wait=0.03), PLAIN: turns(60.0), "loop": turns(60.0)}
    once_more = {PHALANX: turns(90.0, data_wait=0.02), PLAIN: turns(30.0), "loop": turns(100.0)}
    result = summarise([MEASURED, again, once_more], [])
    assert result["samples_per_s"] == {PHALANX: 100.0, PLAIN: 40.0, "loop": 90.0, "keras fit": 10.0}
    assert result["vs_best_by_start"] == pytest.approx([100 / 90, 2.0, 0.9])
    assert result["vs_best"] == pytest.approx(100 / 90)
    assert result["data_wait"] == 0.02


def test_checkpoints_cost_what_a_turn_with_them_falls_short_of_the_next_one_without():
    assert summarise([MEASURED], CHECKPOINT_TURNS)["checkpoint_cost"] == pytest.approx(1 - (0.9 + 0.95 + 0.96) / 3)


def test_a_single_slow_turn_is_no_cost_of_checkpoints():
    pairs = [99.0, 100.0] * 6 + [50.0, 100.0, 99.0, 60.0]
    measured = [{"samples_per_s": speed, "checkpoints": i % 2 == 0} for i, speed in enumerate(pairs)]
    assert summarise([MEASURED], measured)["checkpoint_cost"] == pytest.approx(0.01)


def test_what_was_not_measured_is_no_target():
    result = summarise([{PHALANX: MEASURED[PHALANX], "loop": MEASURED["loop"]}], [])
    names = [line.split()[1] for line in targets_of({"cnn": result})]
    assert names == ["phalanx_vs_best_cnn", "data_wait_cnn"]


def test_each_target_is_one_line_that_says_whether_it_is_reached():
    lines = targets_of({"mlp": summarise([MEASURED], CHECKPOINT_TURNS)})
    assert lines == [
        "target phalanx_vs_best_mlp 1.111 >=1.0 ok",
        "target phalanx_vs_plain_fit_mlp 2.5 >=2.0 ok",
        "target checkpoint_cost_mlp 0.06333 <0.01 short",
        "target data_wait_mlp 0.01 <0.02 ok",
    ]


def test_the_table_is_sorted_by_speed_and_shows_the_losses():
    losses = {PHALANX: 0.25, PLAIN: 0.26, "loop": 0.27, "keras fit": 0.28}
    result = {**summarise([MEASURED], CHECKPOINT_TURNS), "losses": losses, "share_of_matmul_peak": 0.5}
    lines = table_of("mlp", result).splitlines()
    assert [line.split()[-1] for line in lines[1:5]] == ["0.2500", "0.2700", "0.2600", "0.2800"]
    assert "1.11 times the speed of 'loop', 50.0% of the matmul peak" in lines[-1]


def test_the_quick_form_measures_some_of_the_same_contenders():
    for model in ("mlp", "cnn", "transformer_lm"):
        assert set(contenders_of(model, quick=True)) < set(contenders_of(model, quick=False))
    assert not any(name.startswith("tf-keras") for name in contenders_of("transformer_lm", quick=False))


def test_an_unknown_model_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["single", "--models", "mlp,cnnn"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "'cnnn': choose from mlp, cnn, transformer_lm" in capsys.readouterr().err


# Its step is a look at the clock; it notes in a file when it is at work.
WORKER = """
import os, sys
from pathlib import Path
from benchmarks.single_turns import Turns
name, record = sys.argv[1:]
print("said beside the answers", file=sys.stderr)
turns = Turns(4, 10, lambda: {"loss": 0.5}, sys.stdin, sys.stdout, lambda seconds: {"seconds": seconds})
step = 0
while turns.boundary(step):
    if step >= 10:
        with open(record, "a") as file:
            file.write(name)
    step += 5
"""


def contender(name: str, folder: Path, script: str = WORKER) -> Contender:
    return Contender(name, [sys.executable, "-c", script, name, str(folder / "record")], folder / f"{name}.log")


def test_one_works_at_a_time_and_each_begins_a_round_once(tmp_path: Path):
    with contender("a", tmp_path) as a, contender("b", tmp_path) as b:
        assert a.warmed_up() == b.warmed_up() == {"loss": 0.5}
        figures = take_turns([a, b], rounds=2, turn_s=0.002)
    assert [len(own) for own in figures.values()] == [2, 2]
    for turn in (*figures["a"], *figures["b"]):
        assert turn["seconds"] >= 0.002
        steps = turn["samples_per_s"] * turn["seconds"] / 4
        assert steps == pytest.approx(round(steps)) and round(steps) % 5 == 0 and steps > 0
    record = (tmp_path / "record").read_text()
    blocks = [letter for i, letter in enumerate(record) if letter != record[i - 1 : i]]
    assert blocks == ["a", "b", "a"]  # a b, then b a: the middle two turns are both of b


def test_a_worker_ends_with_its_input(tmp_path: Path):
    one = contender("a", tmp_path)
    one.warmed_up()
    one.close()
    assert one._process.returncode == 0


def test_a_dead_worker_is_named_with_what_it_said_last(tmp_path: Path):
    script = WORKER.replace("step += 5", "step += 5 if step < 10 else sys.exit('no memory')")
    with contender("a", tmp_path, script) as one:
        one.warmed_up()
        with pytest.raises(RuntimeError, match=r"(?s)worker of 'a' ended with code 1.*said beside.*no memory"):
            one.turn(0.01)


def test_after_an_error_no_worker_is_left(tmp_path: Path):
    endless = "import time\nwhile True: time.sleep(60)"
    with pytest.raises(KeyError), contender("a", tmp_path, endless) as one:
        raise KeyError
    assert one._process.returncode is not None
