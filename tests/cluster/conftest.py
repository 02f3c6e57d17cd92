"""Agents over tiny worker programs, for every test that needs one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.agent import Agent
from cluster.worker_environment import WorkerProgram
from tests.cluster.agent_workers import Recorder, program


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def agent(tmp_path: Path, recorder: Recorder) -> Iterator[Callable[..., Agent]]:
    agents = []

    def start(*parts: str | WorkerProgram, **settings: object) -> Agent:
        runs = parts[0] if isinstance(parts[0], WorkerProgram) else program(*parts, FOLDER=str(tmp_path))
        agents.append(Agent("a", runs, tmp_path / "logs", recorder, **settings))
        return agents[-1]

    yield start
    for each in agents:
        each.close()
