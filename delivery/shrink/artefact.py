"""One shrunken model: made, measured and judged.

Shape legend: N held-out samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from delivery.shrink.child import ChildFailed
from delivery.shrink.litert import LITERT
from delivery.shrink.model_form import ModelForm, place, sizes_of
from delivery.shrink.reference import Quality, Reference

MOST_DIFFERENCE = {"float32": 1e-3, "float16": 1e-2, "dynamic": 0.2, "int8": 0.25, "int4": 0.6}
"""The parity gate: how far the answers may be from those of the model that was converted, as the root mean square of
the difference over the standard deviation of the answers. Models that lost their weights are at 1 and above."""


@dataclass(frozen=True)
class Artefact:
    """A shrunken model with what was measured of it; figures are None where it did not come so far.

    Attributes:
        name: Of its file, without suffix.
        quantize: One of `delivery.shrink.request.QUANTIZATIONS`.
        prune: Share of the hidden units that were taken out.
        ties: Name of what its weights were tied by; "": nothing.
        num_parameters: Of the model before quantisation.
        size: Bytes of the file, or of the files in its folder.
        compressed_size: Bytes after zlib.
        quality: On the held-out samples.
        share: Of the trained model's quality that it keeps.
        difference: From the answers of the model that was converted; see `MOST_DIFFERENCE`.
        latency_s: Median of one call with one sample, on one thread of this CPU.
        refused: Why it must not be used; None where every gate is passed.
        path: Where its file or folder lies; None where it was refused.
        outputs: Its answers to the held-out samples, [N, ...].
    """

    name: str
    quantize: str
    prune: float
    num_parameters: int
    size: int | None = None
    compressed_size: int | None = None
    quality: Quality | None = None
    share: float | None = None
    difference: float | None = None
    latency_s: float | None = None
    refused: str | None = None
    path: Path | None = None
    outputs: np.ndarray | None = field(default=None, repr=False, compare=False)
    ties: str = ""

    def size_as(self, compressed: bool) -> int | None:
        """Bytes of the file, or of it compressed; None where there is none."""
        return self.compressed_size if compressed else self.size

    def as_json(self) -> dict[str, Any]:
        """Plain data, for the results file."""
        return {
            "name": self.name,
            "quantize": self.quantize,
            "prune": self.prune,
            "tied": self.ties or None,
            "parameters": self.num_parameters,
            "bytes": self.size,
            "compressed_bytes": self.compressed_size,
            "metric": self.quality.name if self.quality else None,
            "value": self.quality.value if self.quality else None,
            "share_kept": self.share,
            "difference": self.difference,
            "latency_ms": None if self.latency_s is None else 1e3 * self.latency_s,
            "refused": self.refused,
            "file": self.path.name if self.path else None,
        }


def artefact_name(prune: float, quantize: str, ties: str = "") -> str:
    """What the files of a recipe are called.

    >>> artefact_name(0.0, "int8"), artefact_name(0.975, "int4", "16values")
    ('int8', 'pruned-0.975-16values-int4')
    """
    return "-".join([*([f"pruned-{prune:g}"] if prune else []), *([ties] if ties else []), quantize])


def make_artefact(
    reference: Reference,
    work: Path,
    quantize: str,
    original: Quality,
    keep: float,
    folder: Path,
    prune: float = 0.0,
    ties: str = "",
    form: ModelForm = LITERT,
) -> Artefact:
    """Converts, runs and judges one model; only one that passes every gate comes to lie in `folder`.

    Args:
        reference: The model that is converted: the trained one, or its pruned and fine-tuned descendant.
        work: What `reference.save` wrote; files of this artefact are added.
        quantize: One of `delivery.shrink.request.QUANTIZATIONS`.
        original: Quality of the trained model.
        keep: Share of it that the artefact has to keep.
        folder: Exists.
        prune: Share of the hidden units that the reference lacks.
        ties: Name of what its weights are tied by.
        form: What it is converted to.

    Returns:
        The artefact, refused or not. A crash of the converter or of the model is a refusal.
    """
    name = artefact_name(prune, quantize, ties)
    facts: dict[str, Any] = {
        "name": name, "quantize": quantize, "prune": prune, "ties": ties, "num_parameters": reference.num_parameters
    }  # fmt: skip
    model = work / f"{quantize}{form.suffix}"
    try:
        form.convert(work, quantize, model)
    except ChildFailed as failure:
        return Artefact(**facts, refused=f"it cannot be converted: {failure}")
    size, compressed_size = sizes_of(model)
    facts |= {"size": size, "compressed_size": compressed_size}
    try:
        outputs, seconds = form.answers(work, model)
    except ChildFailed as failure:
        return Artefact(**facts, refused=f"it cannot be run: {failure}")
    facts |= {
        "outputs": outputs,
        "latency_s": float(np.median(seconds)),
        "difference": difference_of(outputs, reference.outputs),
    }
    if refusal := _parity_refusal(quantize, outputs, reference.outputs, facts["difference"]):
        return Artefact(**facts, refused=refusal)
    quality = reference.quality_of(outputs)
    share = quality.share_of(original)
    facts |= {"quality": quality, "share": share}
    if not share >= keep:
        refusal = f"{quality.name} {quality.value:.4g} keeps {share:.1%} of {original.value:.4g}, less than {keep:.1%}"
        return Artefact(**facts, refused=refusal)
    path = folder / f"{name}{form.suffix}"
    place(model, path)
    return Artefact(**facts, path=path)


def difference_of(outputs: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference over the standard deviation of the expected values; NaN is no agreement.

    >>> difference_of(np.array([1.0, 3.0]), np.array([1.0, 3.0])), difference_of(np.zeros(2), np.array([1.0, -1.0]))
    (0.0, 1.0)
    """
    if outputs.shape != expected.shape:
        return float("inf")
    error = float(np.sqrt(np.mean((outputs.astype(np.float64) - expected) ** 2)))
    return error / max(float(np.std(expected.astype(np.float64))), 1e-12)


def _parity_refusal(quantize: str, outputs: np.ndarray, expected: np.ndarray, difference: float) -> str | None:
    if outputs.shape != expected.shape:
        return f"it answers with shape {list(outputs.shape)}, the trained model with {list(expected.shape)}"
    limit = MOST_DIFFERENCE[quantize]
    if not difference <= limit:
        return f"its answers are off by {difference:.3g} of their standard deviation, more than {limit:g}"
    return None
