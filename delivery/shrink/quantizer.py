"""A float LiteRT model to 4-bit weights, in a process of its own: `python -m delivery.shrink.quantizer REQUEST`.

REQUEST is JSON: `source` and `output`, paths of LiteRT models.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def quantize_to_4_bits(source: Path) -> bytes:
    """Weights in 4 bits by channel, activations in 8 bits while it runs; what has no 4-bit kernel stays as it is."""
    from ai_edge_quantizer import quantizer, recipe

    worker = quantizer.Quantizer(str(source), recipe.dynamic_wi4_afp32())  # type: ignore[arg-type]
    return bytes(worker.quantize().quantized_model or b"")


def main() -> None:
    """Carries out one request."""
    request = json.loads(sys.argv[1])
    Path(request["output"]).write_bytes(quantize_to_4_bits(Path(request["source"])))


if __name__ == "__main__":
    main()
