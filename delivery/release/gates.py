"""The gates themselves: each looks at a version, and says whether it may pass and why."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from delivery.package.training_sample import TRAINING_SAMPLE, read_training_sample
from delivery.package.verification import VerifiedPackage
from delivery.release.bootstrap import paired_difference
from delivery.release.gates_file import Gates, GatesRefused, LatencyGate, ParityGate, SizeGate
from delivery.release.sample_scores import IS_ERROR

_WARM_CALLS = 10
_CHUNK = 250


@dataclass(frozen=True)
class GateResult:
    """What a gate said.

    Attributes:
        gate: Its name in the file.
        verdict: Whether the version may pass.
        reason: Why, as a sentence without its full stop.
        figures: What was measured.
    """

    gate: str
    verdict: Literal["passed", "refused", "skipped"]
    reason: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """A verified version that is loaded.

    Attributes:
        number: In the repository.
        package: The verified copy that it was loaded from.
        loaded: The SavedModel.
        scores: On each held-out sample, [B].
    """

    number: int
    package: VerifiedPackage
    loaded: Any
    scores: np.ndarray

    def call(self, inputs: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        """The answers of the default signature."""
        return self.loaded.signatures["serving_default"](**inputs)


def run_gates(
    gates: Gates, candidate: Version, current: Version | None, slices: Mapping[str, np.ndarray]
) -> Iterator[GateResult]:
    """Asks every gate of the file, the cheap ones first.

    Args:
        gates: The file.
        candidate: To be released.
        current: The version in use; None: there is none.
        slices: The features of `gates.slices.by` of each held-out sample, whole numbers [B].
    """
    yield _parity(gates.parity, candidate)
    if gates.size is not None:
        yield _size(gates.size, candidate.package)
    if gates.latency is not None:
        yield _latency(gates.latency, candidate, current)
    yield _metrics(gates, candidate, current)
    if gates.slices is not None:
        yield _slices(gates, candidate, current, slices)


def _result(gate: str, problem: str | None, reason: str, **figures: Any) -> GateResult:
    return GateResult(gate, "refused" if problem else "passed", problem or reason, figures)


def _parity(gate: ParityGate, candidate: Version) -> GateResult:
    path = candidate.package.path / TRAINING_SAMPLE
    if not path.exists():
        return _result("parity", "the package has no training sample to compare its answers with", "")
    features, wanted = read_training_sample(path)
    largest = 0.0
    for place in range(0, len(next(iter(features.values()))), _CHUNK):
        part = slice(place, place + _CHUNK)
        answers = candidate.call(_tensors({name: values[part] for name, values in features.items()}))
        for name, values in wanted.items():
            if values.dtype.kind != "f":
                continue  # classes follow from the numbers; at a tie the last bit decides
            if name not in answers:
                return _result("parity", f"the package's sample holds an output {name}, which the model lacks", "")
            difference = np.abs(answers[name].numpy() - values[part]) / np.maximum(np.abs(values[part]), 1.0)
            largest = max(largest, float(np.max(difference, initial=0.0)))
            if np.isnan(difference).any():
                largest = float("nan")
                break
    problem = None
    if not largest <= gate.tolerance:
        problem = f"answers differ by {largest:.3g} from those where it was made, more than {gate.tolerance:g}"
    return _result("parity", problem, f"answers differ by at most {largest:.2g}", largest_difference=_finite(largest))


def _size(gate: SizeGate, package: VerifiedPackage) -> GateResult:
    size = package.size
    problem = f"{_megabytes(size)} are more than {_megabytes(gate.at_most)}" if size > gate.at_most else None
    return _result("size", problem, f"{_megabytes(size)} of {_megabytes(gate.at_most)}", bytes=size)


def _latency(gate: LatencyGate, candidate: Version, current: Version | None) -> GateResult:
    path = candidate.package.path / TRAINING_SAMPLE
    if not path.exists():
        return _result("latency", "the package has no training sample to send", "")
    features, _ = read_training_sample(path)
    repeats = -(-gate.batch // len(next(iter(features.values()))))
    inputs = _tensors({name: np.concatenate([values] * repeats)[: gate.batch] for name, values in features.items()})
    versions = [candidate] if current is None or gate.of_current is None else [candidate, current]
    taken: list[list[float]] = [[] for _ in versions]
    for call in range(gate.calls + _WARM_CALLS):
        for version, times in zip(versions, taken, strict=True):  # in turns, so that both meet the same machine
            started = time.perf_counter()
            answers = version.call(inputs)
            next(iter(answers.values())).numpy()
            if call >= _WARM_CALLS:
                times.append(1e3 * (time.perf_counter() - started))
    p50, p99 = (float(value) for value in np.quantile(taken[0], [0.5, 0.99]))
    problems = [
        f"{name} is {value:.3g} ms, more than {limit:g} ms"
        for name, value, limit in (("p50", p50, gate.p50), ("p99", p99, gate.p99))
        if limit is not None and value > limit
    ]
    ratio = None
    if len(taken) == 2 and gate.of_current is not None:
        ratio = p50 / float(np.median(taken[1]))
        if ratio > gate.of_current:
            problems.append(f"p50 is {ratio:.3g} times that of the version in use, more than {gate.of_current:g}")
    return _result(
        "latency",
        "; ".join(problems) or None,
        f"p50 {p50:.3g} ms, p99 {p99:.3g} ms with {gate.batch} samples a call",
        p50_ms=p50,
        p99_ms=p99,
        of_current=ratio,
    )


def _metrics(gates: Gates, candidate: Version, current: Version | None) -> GateResult:
    gate, metric = gates.metrics, gates.metric
    own = float(candidate.scores.mean())
    figures: dict[str, Any] = {"metric": metric, "candidate": _shown(metric, own), "samples": len(candidate.scores)}
    if (problem := _below(metric, own, gate.worst)) is not None:
        return _result("metrics", problem, "", **figures)
    if not np.isfinite(candidate.scores).all():
        return _result("metrics", f"{metric} is no number on some samples", "", **figures)
    if current is None:
        return _result("metrics", None, f"{metric} is {_shown(metric, own):.4g}; no version is in use", **figures)
    difference = paired_difference(candidate.scores, current.scores, gate.confidence, gates.resamples)
    figures |= {"current": _shown(metric, float(current.scores.mean())), "difference": asdict(difference)}
    sentence = (
        f"{metric} is {_shown(metric, own):.4g}, of version {current.number} {figures['current']:.4g}; at "
        f"{gate.confidence:.0%} confidence it is worse by at most {max(0.0, -difference.lower):.4g}"
    )
    problem = None if difference.lower >= -gate.margin else f"{sentence}, more than {gate.margin:g}"
    return _result("metrics", problem, sentence, **figures)


def _slices(gates: Gates, candidate: Version, current: Version | None, slices: Mapping[str, np.ndarray]) -> GateResult:
    gate = gates.slices
    assert gate is not None, "asked only where the file has it"
    parts = [
        (f"{name}={value}", values == value)
        for name, values in slices.items()
        for value, count in zip(*np.unique(values, return_counts=True), strict=True)
        if count >= gate.min_samples
    ]
    if not parts:
        return _result("slices", f"no slice has {gate.min_samples} samples: lower slices.min_samples", "")
    # Bonferroni: with many slices one would seem worse by chance alone.
    confidence = 1 - (1 - gate.confidence) / len(parts)
    problems, rows = [], []
    for name, is_in in parts:
        own = float(candidate.scores[is_in].mean())
        row: dict[str, Any] = {"slice": name, "samples": int(is_in.sum()), "candidate": _shown(gates.metric, own)}
        if (problem := _below(gates.metric, own, gate.worst)) is not None:
            problems.append(f"{name}: {problem}")
        if current is not None:
            difference = paired_difference(candidate.scores[is_in], current.scores[is_in], confidence, gates.resamples)
            row |= {
                "current": _shown(gates.metric, float(current.scores[is_in].mean())),
                "difference": asdict(difference),
            }
            if difference.mean < -gate.margin and difference.upper < 0:
                problems.append(f"{name}: {gates.metric} is worse by {-difference.mean:.3g}, more than {gate.margin:g}")
        rows.append(row)
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    problem = "; ".join(problems[:3]) + more if problems else None
    return _result("slices", problem, f"none of {len(parts)} slices is worse", slices=rows)


def _below(metric: str, own: float, worst: float | None) -> str | None:
    """Why a mean score is worse than allowed; None where it is not."""
    if worst is None or own >= (-worst if metric in IS_ERROR else worst):
        return None
    return f"{metric} is {_shown(metric, own):.4g}, which is worse than {worst:g}"


def _shown(metric: str, mean_score: float) -> float:
    """A metric as people write it: errors are positive."""
    return -mean_score if metric in IS_ERROR else mean_score


def _tensors(features: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(values) for name, values in features.items()}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.3g} MB"


def check_slices(gates: Gates, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The features that slices are cut by, [B] each.

    Raises:
        GatesRefused: One is not there, or has no whole numbers.
    """
    found = {}
    for name in gates.slices.by if gates.slices else ():
        values = samples.get(name)
        if values is None or values.ndim != 1 or values.dtype.kind not in "biu":
            usable = [key for key, it in samples.items() if it.ndim == 1 and it.dtype.kind in "biu"]
            raise GatesRefused(
                f"slices.by={name} is no feature with one whole number a sample: choose from "
                f"{', '.join(usable) or 'none'}"
            )
        found[name] = values
    return found
