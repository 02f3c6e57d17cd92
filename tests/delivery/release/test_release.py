"""Releases over a real repository, with real models: which gate decides, and where the alias is afterwards."""

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from delivery.package.sealing import seal
from delivery.package.signing_keys import SigningKey, create_key, read_signing_key
from delivery.package.training_sample import read_training_sample
from delivery.release.gates_file import Gates, GatesRefused
from delivery.release.release import ReleaseResult, release
from delivery.release.release_report import as_document, as_markdown, as_text, keep_report
from delivery.repository.bucket_repository import BucketRepository
from delivery.repository.model_repository import ModelRepository, RepositoryConflict, RepositoryRefused
from delivery.run_export import export_run
from tests.delivery.repository.object_store import ObjectStore
from trainer.run_folder import RunFolder

GATES = {
    "data": {"name": "digits"},
    "metric": "accuracy",
    "samples": 300,
    "size": {"at_most": "10MB"},
    "latency": {"calls": 20, "p50": "10s", "of_current": 1000},
    "slices": {"by": ["label"], "margin": 0.3, "min_samples": 10},
}


@pytest.fixture(scope="session")
def worse_package(exported_run) -> Path:
    """The same model with noise on its weights."""
    session = exported_run.session
    kept = [variable.numpy() for variable in session.state.evaluation_weights(False)]
    rng = np.random.default_rng(0)
    for variable in session.state.evaluation_weights(False):
        variable.assign(rng.normal(size=variable.shape))
    path = export_run(
        exported_run.config, RunFolder(exported_run.folder), session, version=7, name="digits", ema=False
    ).path
    for variable, values in zip(session.state.evaluation_weights(False), kept, strict=True):
        variable.assign(values)
    return path


@pytest.fixture
def key(exported_run) -> SigningKey:
    return read_signing_key(exported_run.private_key)


@pytest.fixture
def repository(tmp_path: Path, exported_run, worse_package: Path, key: SigningKey) -> ModelRepository:
    """1 and 2: the trained digits, 1 in production; 3: a worse one."""
    made = ModelRepository(tmp_path / "models")
    for package in (exported_run.package, exported_run.package, worse_package):
        made.publish(package, key=key)
    made.promote("digits", 1, "production")
    return made


@pytest.fixture
def run(repository: ModelRepository, exported_run) -> Callable[..., ReleaseResult]:
    def run(version: int | None = None, keyring: Path | None = None, **changes) -> ReleaseResult:
        gates = Gates.model_validate({**GATES, **changes})
        return release(repository, "digits", "production", gates, keyring or exported_run.keys, version=version)

    return run


def test_a_version_that_is_not_worse_is_released(run, repository):
    repository.promote("digits", 2, "staging")
    result = run()  # staging is what is released, not the newest
    assert result.is_released and (result.candidate, result.current) == (2, 1) and result.decided == ()
    assert [gate.gate for gate in result.gates] == [
        "signature",
        "operations",
        "parity",
        "size",
        "latency",
        "metrics",
        "slices",
    ]
    assert {gate.verdict for gate in result.gates} == {"passed"}
    assert repository.aliases("digits") == {"production": 2, "staging": 2}
    assert repository.audit("digits")[-1]["reason"].startswith("release: passed signature, operations, parity")
    assert repository.rollback("digits", "production") == 1


def test_a_worse_version_is_refused_and_the_report_says_by_which_gates(run, repository, tmp_path: Path):
    result = run(3)
    assert result.decided == ("metrics", "slices") and not result.is_released
    assert repository.aliases("digits") == {"production": 1}
    metrics = next(gate for gate in result.gates if gate.gate == "metrics")
    assert metrics.figures["difference"]["upper"] < 0 and "of version 1" in metrics.reason
    assert "REFUSED  metrics" in as_text(result) and "version 3 was not released: metrics, slices decided" in as_text(
        result
    )
    path = Path(keep_report(repository, result))
    assert path.read_text() == as_markdown(result) and "| label=0 |" in as_markdown(result)
    assert json.loads(json.dumps(as_document(result)))["decided_by"] == ["metrics", "slices"]
    assert repository.versions("digits") == [1, 2, 3]


def test_the_first_version_is_measured_by_itself(repository, exported_run):
    gates = Gates.model_validate({**GATES, "metrics": {"worst": 0.99}})
    result = release(repository, "digits", "first", gates, exported_run.keys, version=1)
    assert result.decided == ("metrics",) and "which is worse than 0.99" in as_text(result)
    gates = Gates.model_validate({**GATES, "metrics": {"worst": 0.1}})
    assert release(repository, "digits", "first", gates, exported_run.keys, version=1).is_released


@pytest.mark.parametrize(
    ("changes", "gate", "reason"),
    [
        ({"size": {"at_most": "1kB"}}, "size", "are more than 0.001 MB"),
        ({"latency": {"calls": 20, "p50": "0.001us"}}, "latency", "p50 is .* more than 1e-06 ms"),
        ({"latency": {"calls": 20, "of_current": 0.001}}, "latency", "times that of the version in use"),
        (
            {"slices": {"by": ["label"], "worst": 1.0, "min_samples": 10}},
            "slices",
            "label=.*: accuracy is .* worse than 1",
        ),
    ],
)
def test_each_budget_decides(run, changes: dict, gate: str, reason: str):
    result = run(2, **changes)
    assert result.decided == (gate,)
    found = next(it for it in result.gates if it.gate == gate)
    assert re.search(reason, found.reason)


def test_answers_unlike_those_where_the_model_was_made_decide(run, monkeypatch):
    def made_elsewhere(path: Path):
        features, answers = read_training_sample(path)
        return features, {
            name: values + 0.001 if values.dtype.kind == "f" else values for name, values in answers.items()
        }

    monkeypatch.setattr("delivery.release.gates.read_training_sample", made_elsewhere)
    result = run(2, parity={"tolerance": 1e-4})
    assert result.decided == ("parity",)
    assert "answers differ by 0.001" in as_text(result) and "more than 0.0001" in as_text(result)
    assert run(2, parity={"tolerance": 0.01}).decided == ()


def test_nothing_of_a_package_that_is_not_right_is_loaded(run, repository, tmp_path: Path):
    create_key(tmp_path / "strangers", "stranger")
    result = run(2, keyring=tmp_path / "strangers")
    assert result.decided == ("signature",)
    assert [(gate.gate, gate.verdict) for gate in result.gates[1:]] == [
        (name, "skipped") for name in ("operations", "parity", "size", "latency", "metrics", "slices")
    ]
    assert repository.aliases("digits") == {"production": 1}


def test_a_signed_package_with_an_operation_that_is_not_allowed_is_refused(run, repository, key):
    from tensorflow.core.protobuf import saved_model_pb2

    place = repository.path("digits", 2)
    graph = place / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(graph.read_bytes())
    model.meta_graphs[0].graph_def.node.add(name="x", op="ReadFile")
    graph.chmod(0o644)
    graph.write_bytes(model.SerializeToString())
    seal(place, "digits", 2, key)
    result = run(2)
    assert result.decided == ("operations",) and result.gates[0].verdict == "passed"
    assert "ReadFile" in as_text(result)


def test_answers_that_changed_with_the_machine_are_found_by_parity(run, repository, key):
    place = repository.path("digits", 2) / "assets.extra" / "training_sample.npz"
    with np.load(place) as file:
        arrays = dict(file)
    arrays["prediction:probabilities"] = arrays["prediction:probabilities"] + 0.01
    place.chmod(0o644)
    np.savez(place, **arrays)
    seal(repository.path("digits", 2), "digits", 2, key)
    assert run(2).decided == ("parity",)


def test_who_is_overtaken_releases_nothing(run, repository, monkeypatch):
    from delivery.release import release as module

    asked = module.run_gates

    def overtaken(*arguments):
        yield from asked(*arguments)
        repository.promote("digits", 3, "production")

    monkeypatch.setattr(module, "run_gates", overtaken)
    with pytest.raises(RepositoryConflict, match="somebody else has moved it"):
        run(2)
    assert repository.aliases("digits") == {"production": 3}


def test_of_two_releases_at_once_from_a_bucket_one_moves_the_alias(exported_run, key, monkeypatch):
    from delivery.release import release as module

    asked, together = module.run_gates, threading.Barrier(2)

    def both_have_asked(*arguments):
        yield from asked(*arguments)
        together.wait(600)

    monkeypatch.setattr(module, "run_gates", both_have_asked)
    store = ObjectStore()
    try:
        bucket = BucketRepository(store.url, ("loopback",))
        for _ in range(3):
            bucket.publish(exported_run.package, key=key)
        bucket.promote("digits", 1, "production")
        gates = Gates.model_validate({"data": GATES["data"], "metric": "accuracy", "samples": 300})
        released, overtaken = [], []

        def release_one(version: int) -> None:
            place = BucketRepository(store.url, ("loopback",))
            try:
                result = release(place, "digits", "production", gates, exported_run.keys, version=version)
                released.append((version, keep_report(place, result)))
            except RepositoryConflict:
                overtaken.append(version)

        threads = [threading.Thread(target=release_one, args=(version,)) for version in (2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ((version, report),) = released
        assert overtaken == [5 - version] and bucket.aliases("digits") == {"production": version}
        assert bucket.audit("digits")[-1]["reason"].startswith("release: passed signature, operations, parity")
        assert store.objects["models/" + report.partition("/models/")[2]].startswith(b"# digits")
        assert bucket.rollback("digits", "production") == 1
    finally:
        store.close()


def test_requests_that_make_no_sense_are_refused(run):
    with pytest.raises(RepositoryRefused, match="production of digits is version 1 already"):
        run(1)
    with pytest.raises(
        GatesRefused, match=r"slices\.by=image is no feature with one whole number a sample: choose from label"
    ):
        run(2, slices={"by": ["image"]})
    with pytest.raises(GatesRefused, match="metric=absolute_error needs the output values"):
        run(2, metric="absolute_error")
    with pytest.raises(GatesRefused, match="image has shape"):
        run(2, data={"name": "mnist_sample"})
