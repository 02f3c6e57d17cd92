"""The ready-made pipelines: valid files whose commands exist with the options that they give."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from delivery.release.gates_file import read_gates
from launch.cli import app

CI = Path("launch/ci")


def _scripts(name: str) -> list[str]:
    pipeline = yaml.safe_load((CI / name).read_text())
    if name == "github-actions.yml":
        assert set(pipeline) == {"name", True, "concurrency", "permissions", "jobs"}  # YAML reads the key `on` as true
        jobs = pipeline["jobs"].values()
        assert all(job["runs-on"] and all(("run" in step) != ("uses" in step) for step in job["steps"]) for job in jobs)
        return [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    jobs = [job for job in pipeline.values() if isinstance(job, dict) and "script" in job]
    assert {job["stage"] for job in jobs} == set(pipeline["stages"])
    assert all(job["extends"] in pipeline for job in jobs)
    return [line for job in jobs for line in job["script"]]


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_every_command_of_a_pipeline_is_one_of_phalanx(name: str):
    text = "\n".join(_scripts(name)).replace("\\\n", " ")
    calls = [shlex.split(line) for line in text.splitlines() if line.strip().startswith("phalanx ")]
    assert [call[1] for call in calls] == ["train", "repository", "release"]
    for call in calls:
        command, *rest = call[1:]
        parser = typer.main.get_command(app).commands[command]
        if command == "repository":
            parser, rest = parser.commands[rest[0]], rest[1:]
        context = parser.make_context(command, rest)  # raises for an option or argument that there is not
        assert context.params
    gates = re.search(r"--gates (\S+)", text)
    assert gates is not None and read_gates(Path(gates[1])).metrics.worst == 0.9


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_the_private_key_is_never_on_a_command_line_or_in_an_artifact(name: str):
    text = (CI / name).read_text()
    assert "release.key" in text and "umask 077" in text and "trap 'rm -rf" in text
    assert not re.search(r"echo.*SIGNING_KEY", text)
