"""The first losses of each shipped kind of model. A refactor leaves them alone; a meant change is a visible diff.

Written anew with `python -m tests.trainer.test_golden_losses`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.sessions import losses, small_session

GOLDEN = Path(__file__).parent / "golden_losses.json"
STEPS = 8
# Processors differ in the last bits of a product; the curves of two models of processor part slowly.
TOLERANCE = 1e-4

TRAININGS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "mlp, adamw, cosine, clipped, averaged": {
        "optimizer": {
            "name": "adamw",
            "weight_decay": 0.1,
            "clip_norm": 0.5,
            "schedule": {"name": "cosine", "warmup": "2st"},
        },
        "train": {"ema": 0.9, "accumulate": 2},
    },
    "cnn": {
        "model": {"name": "cnn", "filters": [4], "dense": 8},
        "data": {"shape": [8, 8, 1], "augment": ["flip"]},
    },
    "transformer_lm": {
        "model": {"name": "transformer_lm", "layers": 1, "width": 16, "heads": 2},
        "task": {"name": "language_modelling"},
        "data": {"kind": "tokens", "shape": [9], "num_classes": 20},
    },
}


def curve(name: str) -> list[float]:
    return losses(small_session(**TRAININGS[name]), STEPS)


@pytest.mark.parametrize("name", TRAININGS)
def test_the_first_losses_are_golden(name):
    assert curve(name) == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=TOLERANCE)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: curve(name) for name in TRAININGS}, indent=2) + "\n")
