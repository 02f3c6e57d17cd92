"""What is asked of a shrinking, checked before anything is started; imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.config.byte_size import parse_byte_size

CONVERTED = ("float32", "float16", "dynamic", "int8")
"""What the converter makes: dynamic keeps weights in 8 bits, int8 activations too, float16 weights in 16."""

QUANTIZATIONS = (*CONVERTED, "int4")


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        quantize: Which of `QUANTIZATIONS` to make.
        prune: Share of the hidden units to take out; None for none.
        epochs: Of fine-tuning after pruning.
        keep: Share of the trained model's quality that every artefact must keep.
        budget: Most bytes of the file: the smallest model is looked for. None: `prune` and `quantize` say all.
    """

    quantize: tuple[str, ...] = CONVERTED[:1]
    prune: float | None = None
    epochs: float = 10.0
    keep: float = 0.95
    budget: int | None = None

    def check(self) -> None:
        """Refuses what cannot be carried out, before anything is started.

        Raises:
            ValueError: One sentence for the user.
        """
        for name in self.quantize:
            if name not in QUANTIZATIONS:
                raise ValueError(f"--quantize {name} must be one of {', '.join(QUANTIZATIONS)}: choose one of them")
        if self.prune is not None and not 0 < self.prune < 1:
            raise ValueError(f"--prune {self.prune:g} must lie between 0 and 1: 0.5 takes half of the units out")
        if not 0 < self.keep <= 1:
            raise ValueError(f"--keep {self.keep:g} must be above 0 and at most 1: 0.95 keeps 95% of the quality")
        if not self.epochs > 0:
            raise ValueError(f"--fine-tune {self.epochs:g} must be above 0 epochs: pruning without it ruins a model")
        if self.budget is not None and self.prune is not None:
            raise ValueError("--prune must not be given with --budget, which looks for the rate: leave one out")


def request_of(quantize: Sequence[str], prune: float | None, epochs: float, budget: str | None, keep: float) -> Request:
    """The request that options mean; a search without --quantize tries everything.

    Raises:
        ValueError: One sentence for the user.

    >>> request_of([], None, 3, "2MB", 0.98).budget
    2000000
    >>> request_of(["int2"], None, 3, None, 0.98)
    Traceback (most recent call last):
    ValueError: --quantize int2 must be one of float32, float16, dynamic, int8, int4: choose one of them
    """
    size = None
    if budget is not None:
        try:
            size = parse_byte_size(budget)
        except ValueError as error:
            raise ValueError(f"--budget: {error}") from None
    kinds = tuple(dict.fromkeys(quantize)) or (CONVERTED[:1] if budget is None else QUANTIZATIONS)
    request = Request(kinds, prune, epochs, keep, size)
    request.check()
    return request
