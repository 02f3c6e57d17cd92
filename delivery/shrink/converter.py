"""A SavedModel to LiteRT, in a process of its own: `python -m delivery.shrink.converter REQUEST`.

Some conversions end the process that they run in. REQUEST is JSON: `folder` (what `Reference.save` wrote), `quantize`
and `output`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def convert(folder: Path, quantize: str) -> bytes:
    """The model of a folder as LiteRT takes it.

    Args:
        folder: Holds `model/` and `representative.npz`.
        quantize: One of `delivery.shrink.request.CONVERTED`.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "model"), signature_keys=["serving_default"])
    if quantize != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        samples = dict(np.load(folder / "representative.npz"))
        converter.representative_dataset = lambda: _one_by_one(samples)
    return converter.convert()


def _one_by_one(samples: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    for index in range(len(next(iter(samples.values())))):
        yield {name: values[index : index + 1] for name, values in samples.items()}


def main() -> None:
    """Carries out one request."""
    request = json.loads(sys.argv[1])
    content = convert(Path(request["folder"]), request["quantize"])
    Path(request["output"]).write_bytes(content)


if __name__ == "__main__":
    main()
