"""A SavedModel to TF.js, in a process of its own: `python -m delivery.web.tf_js_converter REQUEST`.

REQUEST is JSON: `folder` (what `Reference.save` wrote), `quantize`, `output`, and `packages`, where the converter lies.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

_STORED_AS = {"float16": {"float16": ["*"]}, "dynamic": {"uint8": ["*"]}}
_ONE_SHARD = 1 << 40  # bytes

# What the converter imports for models that are none of ours. Nothing of it is called.
_UNUSED = (
    "jax",
    "jax.experimental",
    "jax.experimental.jax2tf",
    "tensorflow_decision_forests",
    "tensorflow_hub",
    "tf_keras",
)


def convert(folder: Path, quantize: str, output: Path, packages: Path) -> None:
    """Writes the folder `output`: `model.json` and one file of weights.

    Args:
        folder: Holds `model/`.
        quantize: One of `delivery.web.tf_js_form.QUANTIZATIONS`.
        output: Does not exist.
        packages: Holds the converter.

    Raises:
        ValueError: The model has an operation that TF.js lacks.
    """
    # First, so that TensorFlow itself meets no stub.
    import tensorflow  # noqa: F401

    sys.path.insert(0, str(packages))
    sys.modules.update({name: types.ModuleType(name) for name in _UNUSED})
    from tensorflowjs.converters import convert_tf_saved_model  # type: ignore[import-not-found]

    convert_tf_saved_model(
        str(folder / "model"),
        str(output),
        quantization_dtype_map=_STORED_AS.get(quantize),
        weight_shard_size_bytes=_ONE_SHARD,
    )


def main() -> None:
    """Carries out one request."""
    request = json.loads(sys.argv[1])
    try:
        folder, output, packages = (Path(request[name]) for name in ("folder", "output", "packages"))
        convert(folder, request["quantize"], output, packages)
    except ValueError as error:
        # The last line of what a child writes is what its parent says.
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
