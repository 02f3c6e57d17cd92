"""The command line, for a cloud in which seconds pass as minutes do in the real one: it is asked as much more often."""

from contextlib import AbstractContextManager
from dataclasses import replace
from subprocess import Popen

from cluster import tpu_hosts
from cluster.tpu.patience import Patience
from launch import cli
from tests.launch import supervised_runs

LOOK_S, FIRST_S, MOST_S = 0.2, 0.05, 0.2
_pause = Patience.pause


def pause(patience: Patience, attempt: int) -> None:
    """As `Patience.pause`, within other bounds."""
    _pause(replace(patience, first_s=FIRST_S, most_s=MOST_S), attempt)


def main() -> None:
    """The command."""
    tpu_hosts._LOOK_S, Patience.pause = LOOK_S, pause
    cli.main()


def started(*arguments: str, **environment: str) -> AbstractContextManager[Popen]:
    """As `supervised_runs.started`."""
    return supervised_runs.started(*arguments, program=f"from {__name__} import main; main()", **environment)
