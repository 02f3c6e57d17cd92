import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from delivery.package.signing_keys import read_signing_key
from delivery.package.verification import PackageRefused, verify
from delivery.repository.model_repository import ModelRepository, RepositoryConflict, RepositoryRefused


@pytest.fixture
def repository(tmp_path: Path, exported_run) -> ModelRepository:
    """Three versions of the digits."""
    made = ModelRepository(tmp_path / "models")
    key = read_signing_key(exported_run.private_key)
    for _ in range(3):
        made.publish(exported_run.package, key=key)
    return made


def _empty(tmp_path: Path, versions: int) -> ModelRepository:
    """A repository of folders that look like versions, for what does not look into them."""
    folder = tmp_path / "models"
    for version in range(1, versions + 1):
        (folder / "m" / str(version)).mkdir(parents=True)
    (folder / "m" / ".phalanx").mkdir()
    return ModelRepository(folder)


def test_versions_are_signed_as_what_they_are_and_laid_out_as_servers_read_them(repository, exported_run):
    assert repository.models() == ["digits"] and repository.versions("digits") == [1, 2, 3]
    for version in (1, 2, 3):
        place = repository.folder / "digits" / str(version)
        assert verify(place, exported_run.keys, name="digits", version=version).path == repository.path(
            "digits", version
        )
        assert {stat.S_IMODE(file.stat().st_mode) for file in place.rglob("*") if file.is_file()} == {0o444}
    assert not list((repository.folder / "digits" / ".phalanx" / "publishing").iterdir())
    assert verify(exported_run.package, exported_run.keys).manifest.version == 1  # the original stays


def test_a_version_passed_off_as_another_is_found_out(repository, exported_run):
    shutil.copytree(repository.path("digits", 1), repository.path("digits", 9))
    with pytest.raises(PackageRefused, match="is of version 1, where 9 was expected"):
        verify(repository.path("digits", 9), exported_run.keys, name="digits", version=9)


def test_a_signed_package_keeps_its_version_which_must_be_new(tmp_path: Path, exported_run):
    repository = ModelRepository(tmp_path / "models")
    assert repository.publish(exported_run.package, keyring=exported_run.keys).version == 1
    with pytest.raises(RepositoryRefused, match=r"version 1 of digits is not new, the newest is 1: .*--version 2"):
        repository.publish(exported_run.package)
    with pytest.raises(RepositoryRefused, match="signed as digits, not as other"):
        repository.publish(exported_run.package, name="other")
    assert repository.models() == ["digits"]


def test_what_must_not_be_loaded_is_not_published(tmp_path: Path, package: Path, exported_run):
    repository = ModelRepository(tmp_path / "models")
    (package / "manifest.sig").unlink()
    with pytest.raises(PackageRefused, match="not signed"):
        repository.publish(package, keyring=exported_run.keys)
    (package / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(PackageRefused):
        repository.publish(package, key=read_signing_key(exported_run.private_key))
    assert repository.models() == []


def test_an_alias_moves_and_goes_back(repository):
    repository.promote("digits", 1, "production", expected=None)
    repository.promote("digits", 2, "production", expected=1, reason="better")
    repository.promote("digits", 3, "production")
    repository.promote("digits", 3, "staging")
    assert repository.aliases("digits") == {"production": 3, "staging": 3}
    assert repository.resolve("digits", "production").path == repository.path("digits", 3)
    assert repository.resolve("digits").version == 3 and repository.resolve("digits", "2").version == 2
    assert [repository.rollback("digits", "production"), repository.rollback("digits", "production")] == [2, 1]
    with pytest.raises(RepositoryRefused, match="production of digits has no earlier version"):
        repository.rollback("digits", "production")
    moves = [
        (line["action"], line["alias"], line["from"], line["to"], line["reason"]) for line in repository.audit("digits")
    ]
    assert moves == [
        *(("published", None, None, version, None) for version in (1, 2, 3)),
        ("promoted", "production", None, 1, None),
        ("promoted", "production", 1, 2, "better"),
        ("promoted", "production", 2, 3, None),
        ("promoted", "staging", None, 3, None),
        ("rolled_back", "production", 3, 2, None),
        ("rolled_back", "production", 2, 1, None),
    ]
    assert all("@" in line["who"] and line["time"].endswith("Z") for line in repository.audit("digits"))


def test_who_decided_on_an_older_state_is_refused(tmp_path: Path):
    repository = _empty(tmp_path, 3)
    repository.promote("m", 1, "production")
    repository.promote("m", 2, "production", expected=1)
    with pytest.raises(RepositoryConflict, match="points to version 2 by now, not to version 1: somebody else"):
        repository.promote("m", 3, "production", expected=1)
    with pytest.raises(RepositoryConflict, match="not to no version"):
        repository.promote("m", 3, "production", expected=None)
    assert repository.aliases("m") == {"production": 2}


def test_what_is_not_there_is_refused(tmp_path: Path):
    repository = _empty(tmp_path, 2)
    with pytest.raises(RepositoryRefused, match="m has no version 7: there are 1, 2"):
        repository.promote("m", 7, "production")
    with pytest.raises(RepositoryRefused, match="has no model other: there are m"):
        repository.promote("other", 1, "production")
    with pytest.raises(RepositoryRefused, match="m has no alias production"):
        repository.resolve("m", "production")
    with pytest.raises(RepositoryRefused, match="cannot be an alias"):
        repository.promote("m", 1, "3")
    for name in ("../m", "", ".phalanx", "a/b"):
        with pytest.raises(ValueError, match="cannot name a model"):
            repository.versions(name)


def test_retention_keeps_aliases_and_where_they_would_go_back_to(tmp_path: Path):
    repository = _empty(tmp_path, 8)
    for version in (2, 4, 5):
        repository.promote("m", version, "production")
    repository.promote("m", 1, "staging")
    assert repository.prune("m", 2) == [2, 3, 6]
    assert repository.versions("m") == [1, 4, 5, 7, 8]
    assert repository.rollback("m", "production") == 4
    with pytest.raises(RepositoryRefused, match="--keep=0 must be at least 1"):
        repository.prune("m", 0)
    assert not list((repository.folder / "m" / ".phalanx").glob("removed-*"))


def test_a_deleted_number_is_never_given_again(repository, exported_run):
    repository.promote("digits", 1, "production")
    assert repository.prune("digits", 1) == [2]
    shutil.rmtree(repository.path("digits", 3))
    assert repository.publish(exported_run.package, key=read_signing_key(exported_run.private_key)).version == 4


def test_the_audit_log_gets_the_line_that_a_kill_has_kept_from_it(tmp_path: Path):
    repository = _empty(tmp_path, 2)
    repository.promote("m", 1, "production")
    log = repository.folder / "m" / ".phalanx" / "audit.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-20])  # as after a kill in the middle of the line
    repository.promote("m", 2, "production")
    assert [(line["from"], line["to"]) for line in repository.audit("m") if line["alias"]] == [(None, 1), (1, 2)]


def test_a_damaged_state_says_so(tmp_path: Path):
    repository = _empty(tmp_path, 1)
    (repository.folder / "m" / ".phalanx" / "state.json").write_text("{}")
    with pytest.raises(RepositoryRefused, match=r"state\.json is damaged"):
        repository.aliases("m")


_PROMOTER = """
import sys
from pathlib import Path
from delivery.repository.model_repository import ModelRepository, RepositoryConflict
repository, own = ModelRepository(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    now = repository.aliases("m").get("production")
    try:
        repository.promote("m", own, "production", expected=now)
    except RepositoryConflict:
        print("lost", flush=True)
    else:
        print(f"won {now}", flush=True)
"""


@pytest.mark.processes
def test_of_promoters_at_once_one_wins_and_nothing_is_torn(tmp_path: Path):
    repository = _empty(tmp_path, 4)
    promoters = [
        subprocess.Popen(
            [sys.executable, "-c", _PROMOTER, str(repository.folder), str(version)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in (1, 2, 3, 4)
    ]
    for promoter in promoters:
        assert promoter.stdout is not None and promoter.stdout.readline() == "ready\n"
    for promoter in promoters:
        assert promoter.stdin is not None
        promoter.stdin.write("go\n")
        promoter.stdin.flush()
    said = []
    while any(promoter.poll() is None for promoter in promoters):
        assert repository.aliases("m").get("production") in (None, 1, 2, 3, 4)  # a reader never sees a part
        json.loads((repository.folder / "m/.phalanx/state.json").read_text()) if repository.aliases("m") else None
        time.sleep(0.001)
    for promoter in promoters:
        said += promoter.communicate()[0].split("\n")
        assert promoter.returncode == 0
    outcomes = Counter(line.split()[0] for line in said if line)
    assert outcomes["won"] + outcomes["lost"] == 160 and outcomes["lost"] > 0
    audit = repository.audit("m")
    assert [line["serial"] for line in audit] == list(range(1, len(audit) + 1))
    # The log is one chain: each move starts where the one before it ended.
    moves = [line for line in audit if line["alias"]]
    assert [line["from"] for line in moves] == [None, *(line["to"] for line in moves[:-1])]
    assert repository.aliases("m")["production"] == moves[-1]["to"]


_PUBLISHER = """
import sys
from pathlib import Path
from delivery.package.signing_keys import read_signing_key
from delivery.repository.model_repository import ModelRepository
repository, key = ModelRepository(Path(sys.argv[1])), read_signing_key(Path(sys.argv[3]))
repository.publish(Path(sys.argv[2]), key=key)
print("ready", flush=True)
while True:
    repository.publish(Path(sys.argv[2]), key=key)
"""


@pytest.mark.processes
def test_a_kill_while_publishing_leaves_nothing_half_visible(tmp_path: Path, exported_run):
    repository = ModelRepository(tmp_path / "models")
    arguments = [str(repository.folder), str(exported_run.package), str(exported_run.private_key)]
    for round in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", _PUBLISHER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        area = repository.folder / "digits" / ".phalanx" / "publishing"
        wanted = ("saved_model.pb", "manifest.sig")[round]
        end = time.monotonic() + 60
        while not list(area.glob(f"*/{wanted}")):
            assert child.poll() is None and time.monotonic() < end
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        for version in repository.versions("digits"):
            verify(repository.path("digits", version), exported_run.keys, name="digits", version=version)
    next_one = repository.publish(exported_run.package, key=read_signing_key(exported_run.private_key))
    assert next_one.version == repository.versions("digits")[-1] and not list(area.iterdir())
    published = [line["to"] for line in repository.audit("digits")]
    assert published == repository.versions("digits") == list(range(1, next_one.version + 1))
