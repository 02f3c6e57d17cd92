import io

from rich.console import Console

from trainer.observe.live import Live


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None, highlight=False)


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_lines_without_a_terminal():
    console, clock = _console(terminal=False), Clock()
    with Live(total_steps=1000, console=console, clock=clock) as live:
        clock.now = 60.0  # compiling, which says nothing about the steps to come
        live.update(200, {"loss": 0.5}, 10.0)
        clock.now = 70.0
        live.update(300, {"loss": 0.25, "accuracy": 0.5}, 41_234.0, data_wait=0.012)
        live.evaluation(300, "test", {"accuracy": 0.9312}, duration_s=0.5)
        clock.now = 140.0
        live.update(1000, {"loss": float("nan")}, 900.0)
    assert _text(console).splitlines() == [
        "step  200/1000  loss 0.5000  10 samples/s",
        "step  300/1000  loss 0.2500  accuracy 0.5000  41.2k samples/s  data 1.2%  ETA 1m10s",
        "step  300/1000  test  accuracy 0.9312  (0.5s)",
        "step 1000/1000  loss nan  900 samples/s",
    ]


def test_the_terminal_line_is_drawn_at_most_four_times_a_second_and_always_at_the_end():
    console, clock = _console(terminal=True), Clock()
    with Live(total_steps=100, console=console, clock=clock) as live:
        for step in range(1, 101):
            clock.now += 0.01
            live.update(step, {"loss": 1.0}, 10.0)
    drawn = [step for step in range(1, 101) if f"step {step:>3}/100" in _text(console)]
    assert drawn == [1, 26, 51, 76, 100]


def test_lasting_lines_stay_above_the_live_one():
    console = _console(terminal=True)
    with Live(total_steps=100, console=console) as live:
        live.update(50, {"loss": 1.0}, 10.0)
        live.evaluation(50, "validation", {"accuracy": 0.5})
    text = _text(console)
    assert text.index("validation  accuracy 0.5000") < text.rindex("step  50/100  loss 1.0000")


def test_without_a_total_there_is_no_eta():
    console = _console(terminal=False)
    Live(total_steps=None, console=console).update(50, {"loss": 1.0}, 10.0)
    assert _text(console) == "step 50  loss 1.0000  10 samples/s\n"
