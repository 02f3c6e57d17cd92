"""The commands as people type them: exit codes, and what scripts read."""

import json
from pathlib import Path

import pytest

from launch.cli import run
from launch.exit_code import ExitCode

GATES = "data: {name: digits}\nmetric: accuracy\nsamples: 100\nmetrics: {worst: 0.2}\nsize: {at_most: SIZE}\n"


def test_from_a_key_to_a_release(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    keys, models = str(tmp_path / "keys"), str(tmp_path / "models")
    private = f"{keys}/ci.key"
    assert run(["keys", "create", "ci", "--folder", keys, "--expires", "2090-01-31"]) == 0
    assert run(["keys", "list", keys]) == 0
    assert "expires 2090-01-31T00:00:00Z" in capsys.readouterr().out

    assert run(["verify", str(package), "--key", keys, "--json"]) == ExitCode.FAILED  # signed with another key
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["rule"], answer["file"]) == (False, "unknown_key", "manifest.sig")
    assert run(["sign", str(package), "--key", private]) == 0
    capsys.readouterr()
    assert run(["verify", str(package), "--key", keys, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] and (answer["name"], answer["version"], answer["key"]["name"]) == ("digits", 1, "ci")

    for _ in range(2):
        assert run(["repository", "publish", str(package), "--key", private, "--repository", models]) == 0
    gates = tmp_path / "gates.yaml"
    release = ["release", "digits", "--to", "production", "--gates", str(gates), "--key", keys, "--repository", models]
    gates.write_text(GATES.replace("SIZE", "1kB"))
    capsys.readouterr()
    assert run([*release, "--json"]) == ExitCode.FAILED
    report = json.loads(capsys.readouterr().out)
    assert report["decided_by"] == ["size"] and not report["released"] and Path(report["report"]).exists()
    gates.write_text(GATES.replace("SIZE", "10MB"))
    assert run([*release, "--version", "1"]) == 0 and run([*release, "--report", str(tmp_path / "report.md")]) == 0
    assert "# digits 2 to production" in (tmp_path / "report.md").read_text()
    assert run(["repository", "rollback", "digits", "--to", "production", "--repository", models]) == 0
    capsys.readouterr()
    assert run(["repository", "list", "digits", "--repository", models, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["models"]
    assert entry["aliases"] == {"production": 1} and entry["versions"] == [1, 2]
    assert [line["action"] for line in entry["audit"]] == [
        "published",
        "published",
        "promoted",
        "promoted",
        "rolled_back",
    ]
    assert run(["repository", "prune", "digits", "--keep", "1", "--repository", models]) == 0
    assert "deleted nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (lambda p: (p / "x").symlink_to("y"), ExitCode.FAILED, "phalanx: x is a symbolic link: a package holds plain"),
        (lambda p: None, ExitCode.WRONG_REQUEST, "holds no public key"),
    ],
)
def test_a_refusal_is_one_sentence(change, code, sentence: str, package: Path, exported_run, tmp_path: Path, capsys):
    change(package)
    (tmp_path / "empty").mkdir()
    keys = exported_run.keys if code is ExitCode.FAILED else tmp_path / "empty"
    assert run(["verify", str(package), "--key", str(keys)]) == code
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1


def test_wrong_options_are_refused_before_anything_is_read(capsys: pytest.CaptureFixture):
    assert run(["export", "nowhere", "--checkpoint", "newest"]) == ExitCode.WRONG_REQUEST
    assert "--checkpoint=newest must be last, best or a step" in capsys.readouterr().err
    assert run(["keys", "create", "a", "--expires", "soon"]) == ExitCode.WRONG_REQUEST
    assert "'soon' is no time: write it as 2027-01-31" in capsys.readouterr().err
