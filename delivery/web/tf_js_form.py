"""TF.js models: made and run in child processes.

Shape legend: N held-out samples.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from delivery.shrink.child import run_child, run_command
from delivery.shrink.model_form import ModelForm

QUANTIZATIONS = ("float32", "float16", "dynamic")
"""Of `delivery.shrink.request.QUANTIZATIONS`: weights are stored in 32, 16 or 8 bits, and computed with in 32."""

_ANSWERS = Path(__file__).parent / "node" / "answers.cjs"


@dataclass(frozen=True)
class TfJsForm(ModelForm):
    """The form of models for TF.js, a folder with `model.json` and `group1-shard1of1.bin`.

    Attributes:
        modules: The `node_modules` folder with the runtime.
        converter: The folder of Python packages with the converter.
        node: Node.js.
    """

    modules: Path
    converter: Path
    node: Path
    name = "tfjs"
    suffix = ".tfjs"
    quantizations = QUANTIZATIONS

    def convert(self, work: Path, quantize: str, model: Path) -> None:
        """Writes the folder."""
        request = {"folder": str(work), "quantize": quantize, "output": str(model)}
        run_child("delivery.web.tf_js_converter", {**request, "packages": str(self.converter)})

    def answers(self, work: Path, model: Path) -> tuple[np.ndarray, np.ndarray]:
        """Outputs [N, ...] and seconds [N] of one call a sample, from WebAssembly in Node.js."""
        (samples,) = np.load(work / "samples.npz").values()
        inputs, outputs, seconds = (model.with_suffix(f".{name}") for name in ("inputs", "outputs", "seconds"))
        inputs.write_bytes(np.ascontiguousarray(samples, "<f4").tobytes())
        request = {
            "modules": str(self.modules),
            "model": str(model),
            "inputs": str(inputs),
            "shape": list(samples.shape),
            "outputs": str(outputs),
            "seconds": str(seconds),
        }
        run_command([str(self.node), str(_ANSWERS), json.dumps(request)])
        return (
            np.fromfile(outputs, "<f4").reshape(len(samples), -1),
            np.fromfile(seconds, "<f8"),
        )
