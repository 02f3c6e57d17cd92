"""A LiteRT model's answers and their times, in a process of its own: `python -m delivery.shrink.runner REQUEST`.

REQUEST is JSON: `model`, `samples` (.npz of the inputs, [N, ...] each) and `output`, where an .npz with `outputs`
[N, ...] and `seconds` [N] goes. TensorFlow is not imported.

Shape legend: N samples.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

_WARM_UP = 5


def answers_of(model: Path, samples: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [N, ...] and seconds [N] of one call a sample, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model), num_threads=1)
    call = interpreter.get_signature_runner("serving_default")
    outputs, seconds = [], []
    total = len(next(iter(samples.values())))
    for index in [0] * _WARM_UP + list(range(total)):
        sample = {name: values[index : index + 1] for name, values in samples.items()}
        started = time.perf_counter()
        answer = call(**sample)
        seconds.append(time.perf_counter() - started)
        outputs.append(next(iter(answer.values()))[0].copy())
    return np.stack(outputs[_WARM_UP:]), np.asarray(seconds[_WARM_UP:])


def main() -> None:
    """Carries out one request."""
    request = json.loads(sys.argv[1])
    outputs, seconds = answers_of(Path(request["model"]), dict(np.load(request["samples"])))
    np.savez(request["output"], outputs=outputs, seconds=seconds)


if __name__ == "__main__":
    main()
