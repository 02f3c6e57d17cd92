"""Repositories in stores of objects: fsspec's own in memory, and one at a loopback address."""

import threading
import uuid
from pathlib import Path

import pytest

from delivery.package.signing_keys import read_signing_key
from delivery.package.verification import PackageRefused, verify
from delivery.repository.bucket_repository import ATOMIC, BucketRepository
from delivery.repository.model_repository import ModelRepository
from delivery.repository.refusal import RepositoryConflict, RepositoryRefused
from launch.cli import run
from tests.delivery.repository.object_store import ObjectStore


@pytest.fixture(params=["memory", "loopback"])
def bucket(request: pytest.FixtureRequest):
    """An empty repository."""
    if request.param == "memory":
        yield BucketRepository(f"memory://{uuid.uuid4().hex}/models")
        return
    store = ObjectStore()
    yield BucketRepository(store.url, (*ATOMIC, "loopback"))
    store.close()


def test_versions_and_aliases_as_in_a_folder_and_what_is_pulled_is_what_was_signed(bucket, exported_run, tmp_path):
    key = read_signing_key(exported_run.private_key)
    assert bucket.models() == [] and bucket.versions("digits") == []
    assert bucket.publish(exported_run.package, keyring=exported_run.keys).version == 1
    with pytest.raises(RepositoryRefused, match="version 1 of digits is not new"):
        bucket.publish(exported_run.package)
    assert [bucket.publish(exported_run.package, key=key).version for _ in range(3)] == [2, 3, 4]
    bucket.promote("digits", 2, "production", expected=None)
    bucket.promote("digits", 3, "production", reason="better")
    with pytest.raises(RepositoryConflict, match="points to 3 by now"):
        bucket.promote("digits", 4, "production", expected=2)
    assert bucket.rollback("digits", "production") == 2
    assert (bucket.models(), bucket.versions("digits"), bucket.aliases("digits")) == (
        ["digits"], [1, 2, 3, 4], {"production": 2},
    )  # fmt: skip

    mirror = ModelRepository(tmp_path / "models")
    assert bucket.pull("digits", mirror.folder, exported_run.keys) == [2, 4]
    assert mirror.resolve("digits", "production").version == 2
    verify(mirror.path("digits", 2), exported_run.keys, name="digits", version=2)
    assert bucket.pull("digits", mirror.folder, exported_run.keys) == []
    bucket.promote("digits", 4, "production")
    assert bucket.prune("digits", 1) == [1, 3]  # 2 is where a rollback would go
    assert bucket.pull("digits", mirror.folder, exported_run.keys) == []
    assert (mirror.aliases("digits"), mirror.versions("digits")) == ({"production": 4}, [2, 4])
    actions = [line["action"] for line in bucket.audit("digits")]
    assert actions == [*["published"] * 4, "promoted", "promoted", "rolled_back", "promoted", "pruned"]
    assert bucket.audit("digits")[5]["reason"] == "better"


def test_of_many_that_move_an_alias_at_once_one_wins_and_nothing_is_lost(exported_run):
    store = ObjectStore()
    try:
        places = [BucketRepository(store.url, ("loopback",)) for _ in range(8)]
        key = read_signing_key(exported_run.private_key)
        outcomes: list[str] = []
        together = threading.Barrier(len(places))

        def promote(bucket: BucketRepository, number: int) -> None:
            together.wait(60)
            try:
                bucket.promote("digits", 1 + number % 2, "production", expected=None)
                outcomes.append("won")
            except RepositoryConflict:
                outcomes.append("lost")
            bucket.promote("digits", 1, f"reader-{number}")

        def publish(bucket: BucketRepository) -> None:
            bucket.publish(exported_run.package, key=key)

        for act, arguments in (
            (publish, [(one,) for one in places[:2]]),
            (promote, [*zip(places, range(8), strict=True)]),
        ):
            threads = [threading.Thread(target=act, args=given) for given in arguments]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert places[0].versions("digits") == [1, 2]
        assert sorted(outcomes) == ["lost"] * 7 + ["won"]
        assert set(places[0].aliases("digits")) == {"production", *(f"reader-{number}" for number in range(8))}
        assert [line["serial"] for line in places[0].audit("digits")] == [*range(1, 2 + 1 + 8 + 1)]
    finally:
        store.close()


def test_a_change_whose_answer_was_lost_is_not_taken_for_somebody_elses(exported_run):
    store = ObjectStore()
    try:
        bucket = BucketRepository(store.url, ("loopback",))
        store.loses_answer = "/states/"
        assert bucket.publish(exported_run.package, keyring=exported_run.keys).version == 1
        assert store.loses_answer is None
        store.loses_answer = "/states/"
        bucket.promote("digits", 1, "production", expected=None)
        assert store.loses_answer is None
        assert [line["action"] for line in bucket.audit("digits")] == ["published", "promoted"]
    finally:
        store.close()


def test_a_store_that_pays_no_heed_to_the_condition_is_refused_before_anything_is_changed(exported_run):
    store = ObjectStore(heeds=False)
    try:
        for _ in range(2):
            bucket = BucketRepository(store.url, ("loopback",))
            with pytest.raises(RepositoryRefused, match="conditional writes"):
                bucket.publish(exported_run.package, keyring=exported_run.keys)
            assert set(store.objects) == {"models/digits/.phalanx/created-once"}
    finally:
        store.close()


def test_what_was_changed_or_added_in_the_bucket_is_not_brought(exported_run, tmp_path: Path):
    store = ObjectStore()
    try:
        bucket = BucketRepository(store.url, ("loopback",))
        bucket.publish(exported_run.package, keyring=exported_run.keys)
        # Nobody sees what a killed publication has left.
        store.objects["models/digits/7/saved_model.pb"] = b"half"
        assert bucket.versions("digits") == [1]
        whole = dict(store.objects)
        for key, content in (("fingerprint.pb", b"other"), ("more.txt", b"x"), ("../../../out", b"x")):
            store.objects.clear()
            store.objects.update(whole | {f"models/digits/1/{key}": content})
            with pytest.raises((PackageRefused, RepositoryRefused)):
                bucket.pull("digits", tmp_path / "models", exported_run.keys)
        assert ModelRepository(tmp_path / "models").versions("digits") == []
        assert not (tmp_path / "out").exists() and not list((tmp_path / "models" / "digits" / ".phalanx").iterdir())
    finally:
        store.close()


def test_a_store_that_promises_too_little_or_speaks_to_nobody_is_refused():
    for url, message in (
        ("sftp://host/models", "only where there is none"),
        ("file:///models", "use a folder"),
        ("s3://bucket/models", "install phalanx"),
    ):
        with pytest.raises(RepositoryRefused, match=message):
            BucketRepository(url)
    bucket = BucketRepository(f"memory://{uuid.uuid4().hex}")
    with pytest.raises(RepositoryRefused, match="has no model m"):
        bucket.check("m")
    with pytest.raises(RepositoryRefused, match="no version 1"):
        bucket.promote("m", 1, "production")


def test_the_commands_take_the_address_of_a_bucket(exported_run, tmp_path: Path, capsys: pytest.CaptureFixture):
    place = ["--repository", f"memory://{uuid.uuid4().hex}/models"]
    mirror = tmp_path / "models"
    for command in (
        ["publish", str(exported_run.package), "--key", str(exported_run.private_key), *place],
        ["promote", "digits", "1", "--to", "production", *place],
        ["list", "digits", *place],
        ["pull", "digits", "--to", str(mirror), "--trust", str(exported_run.keys), *place],
    ):
        assert run(["repository", *command]) == 0
    said = capsys.readouterr().out
    assert "models/digits/1  digits 1" in said and "production 1" in said and "brought 1 to" in said
    assert ModelRepository(mirror).resolve("digits", "production").version == 1
    assert run(["repository", "pull", "digits", "--repository", str(mirror)]) == 2
    assert "give a bucket" in capsys.readouterr().err
    assert run(["repository", "list", "other", *place]) != 0
    assert "has no model other" in capsys.readouterr().err
