"""From a version in the repository to an alias that points to it: every gate first, then one atomic move."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import tensorflow as tf

from delivery.package.signing_keys import time_text
from delivery.package.verification import Keyring, PackageRefused, VerifiedPackage
from delivery.release.gates import GateResult, Version, check_slices, run_gates
from delivery.release.gates_file import Gates
from delivery.release.sample_scores import read_held_out, score
from delivery.repository.bucket_repository import BucketRepository
from delivery.repository.model_repository import ModelRepository, RepositoryRefused
from trainer.data.registry import open_source
from trainer.data.source import Schema

Repository = ModelRepository | BucketRepository
_OF_CONTENTS = frozenset({"operation", "function", "collection", "object", "asset", "warmup", "training_sample"})


@dataclass(frozen=True)
class ReleaseResult:
    """How a release ended.

    Attributes:
        name: Of the model.
        alias: That was to be moved.
        candidate: The version that was to be released.
        current: Where the alias pointed; None: nowhere.
        gates: What each gate said, in order.
        time: ISO 8601.
    """

    name: str
    alias: str
    candidate: int
    current: int | None
    gates: tuple[GateResult, ...]
    time: str

    @property
    def decided(self) -> tuple[str, ...]:
        """The gates that refused; none where the version was released."""
        return tuple(result.gate for result in self.gates if result.verdict == "refused")

    @property
    def is_released(self) -> bool:
        """Whether the alias was moved."""
        return not self.decided


def release(
    repository: Repository,
    name: str,
    alias: str,
    gates: Gates,
    keyring: Keyring,
    *,
    version: int | None = None,
) -> ReleaseResult:
    """Asks all gates about a version, and moves the alias if none refuses.

    Args:
        repository: Holds the versions.
        name: Of the model.
        alias: To be moved, as `production`.
        gates: To be passed.
        keyring: Of the keys that may sign.
        version: To be released; None: that of the alias `staging`, else the newest.

    Raises:
        RepositoryRefused: There is no such version, or the alias points to it already.
        RepositoryConflict: Somebody else moved the alias meanwhile; it stays there.
        GatesRefused: The gates do not fit model and data.
        KeyRefused: The keyring cannot be used.
        DataError: The held-out data cannot be read.
    """
    candidate = _chosen(repository, name, alias, version)
    current = repository.aliases(name).get(alias)
    if candidate == current:
        raise RepositoryRefused(f"{alias} of {name} is version {candidate} already: name another one with --version")
    with tempfile.TemporaryDirectory(prefix="phalanx-release-") as place:
        results = _ask(repository, name, candidate, current, gates, keyring, Path(place))
    result = ReleaseResult(name, alias, candidate, current, tuple(results), time_text(datetime.now(timezone.utc)))
    if result.is_released:
        reason = f"release: passed {', '.join(it.gate for it in results)}"
        repository.promote(name, candidate, alias, expected=current, reason=reason)
    return result


def _chosen(repository: Repository, name: str, alias: str, version: int | None) -> int:
    if version is None and alias != "staging" and "staging" in repository.aliases(name):
        return repository.resolve(name, "staging").version
    return repository.resolve(name, version).version


def _ask(
    repository: Repository,
    name: str,
    candidate: int,
    current: int | None,
    gates: Gates,
    keyring: Keyring,
    place: Path,
) -> list[GateResult]:
    try:
        package = repository.verified(name, candidate, keyring, place / "candidate")
    except PackageRefused as refusal:
        gate = "operations" if refusal.rule in _OF_CONTENTS else "signature"
        others = [other for other in _gate_names(gates) if other != gate]
        passed = [GateResult("signature", "passed", "signature and files are right")] if gate == "operations" else []
        skipped = [other for other in others if other != "signature" or not passed]
        return [
            *passed,
            GateResult(gate, "refused", str(refusal), {"rule": refusal.rule, "file": refusal.file}),
            *(GateResult(other, "skipped", "nothing of the package was loaded") for other in skipped),
        ]
    assert package.key is not None
    results = [
        GateResult("signature", "passed", f"signed with {package.key.name} ({package.key.id})"),
        GateResult("operations", "passed", f"{len(package.operations)} kinds, all on the list"),
    ]
    source = open_source(gates.data, "held_out")
    samples, schema = read_held_out(source, gates.samples), source.schema
    slices = check_slices(gates, samples)
    in_use = None
    if current is not None:
        try:
            in_use = _load(
                repository.verified(name, current, keyring, place / "current"), current, gates, samples, schema
            )
        except PackageRefused as refusal:
            return [
                *results,
                GateResult("metrics", "refused", f"version {current}, in use, cannot be compared with: {refusal}"),
            ]
    return results + list(run_gates(gates, _load(package, candidate, gates, samples, schema), in_use, slices))


def _load(
    package: VerifiedPackage, number: int, gates: Gates, samples: dict[str, np.ndarray], schema: Schema
) -> Version:
    loaded = tf.saved_model.load(str(package.path))
    return Version(number, package, loaded, score(loaded, gates.metric, samples, schema))


def _gate_names(gates: Gates) -> list[str]:
    optional = [name for name in ("size", "latency") if getattr(gates, name) is not None]
    return ["signature", "operations", "parity", *optional, "metrics", *(["slices"] if gates.slices else [])]
