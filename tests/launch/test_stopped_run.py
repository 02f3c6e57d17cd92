"""What a person is told of a run that somebody has stopped: never that a state is saved which is not."""

import json

from launch.exit_code import ExitCode
from launch.training_run import _conclude, _End, _saved_step
from trainer.run_folder import RunFolder

STARTED = {"event": "supervisor_started", "continued": False}
TOOK_STEPS = {"event": "progressed", "worker": "w1", "generation": 1, "step": 8, "phase": "step"}
SAVED = {"event": "stopped", "step": 8, "reason": "SIGTERM"}


def told(folder: RunFolder, capsys, *events: dict) -> tuple[ExitCode, str]:
    folder.journal.write_text("".join(json.dumps({"time": 0.0, **event}) + "\n" for event in events))
    code = _conclude(folder, _End("SIGTERM", _saved_step(folder), {}))
    return code, capsys.readouterr().out


def test_only_a_state_that_the_newest_launch_has_saved_is_called_saved(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    folder.create()
    code, text = told(folder, capsys, STARTED, TOOK_STEPS, SAVED)
    assert code == ExitCode.STOPPED and "after step 8, with the state saved" in text
    code, text = told(folder, capsys, STARTED, TOOK_STEPS, SAVED, STARTED, TOOK_STEPS)
    assert code == ExitCode.FAILED and "could not save" in text and "from the beginning" in text
    code, text = told(folder, capsys, STARTED)  # no step was taken, and nothing is lost
    assert code == ExitCode.STOPPED and "after step 0" in text
