"""LiteRT models: made and run in child processes.

Shape legend: N held-out samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from delivery.shrink.child import run_child
from delivery.shrink.model_form import ModelForm
from delivery.shrink.request import QUANTIZATIONS


class LiteRt(ModelForm):
    """The form of models for phones, the edge and LiteRT.js."""

    name = "litert"
    suffix = ".tflite"
    quantizations = QUANTIZATIONS

    def convert(self, work: Path, quantize: str, model: Path) -> None:
        """Writes the file, unless it is there: models of 4 bits are made of those of 32."""
        if quantize == "int4":
            source = model.with_name(f"float32{self.suffix}")
            self.convert(work, "float32", source)
            run_child("delivery.shrink.quantizer", {"source": str(source), "output": str(model)})
        elif not model.exists():
            request = {"folder": str(work), "quantize": quantize, "output": str(model)}
            run_child("delivery.shrink.converter", request)

    def answers(self, work: Path, model: Path) -> tuple[np.ndarray, np.ndarray]:
        """Outputs [N, ...] and seconds [N] of one call a sample."""
        output = model.with_suffix(".npz")
        request = {"model": str(model), "samples": str(work / "samples.npz"), "output": str(output)}
        run_child("delivery.shrink.runner", request)
        with np.load(output) as measured:
            return measured["outputs"], measured["seconds"]


LITERT = LiteRt()
