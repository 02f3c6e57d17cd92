"""What is asked of a shrinking, checked before anything is started; imports nothing that takes time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.config.byte_size import parse_byte_size

CONVERTED = ("float32", "float16", "dynamic", "int8")
"""What the converter makes: dynamic keeps weights in 8 bits, int8 activations too, float16 weights in 16."""

QUANTIZATIONS = (*CONVERTED, "int4")

MOST_CLUSTERS = 256


@dataclass(frozen=True)
class Ties:
    """Few values and many zeros, which shrink the compressed file.

    Attributes:
        clusters: Values that the weights of a tensor may have, zero not counted where weights are sparse; None: any.
        sparse: (N, M): N of each M neighbouring weights are kept; None: all are.
    """

    clusters: int | None = None
    sparse: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        return self.clusters is not None or self.sparse is not None

    @property
    def name(self) -> str:
        """As it is part of the names of files.

        >>> Ties(16, (2, 4)).name, Ties().name
        ('2of4-16values', '')
        """
        parts = ["{}of{}".format(*self.sparse)] if self.sparse else []
        return "-".join([*parts, *([f"{self.clusters}values"] if self.clusters else [])])

    @property
    def bits(self) -> float:
        """What a weight takes if each value is as frequent as the others."""
        density = self.sparse[0] / self.sparse[1] if self.sparse else 1.0
        return density * (math.log2(self.clusters) if self.clusters else 32.0)


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        quantize: Which of `QUANTIZATIONS` to make.
        prune: Share of the hidden units to take out; None for none.
        epochs: Of fine-tuning after pruning.
        keep: Share of the trained model's quality that every artefact must keep.
        budget: Most bytes of the file: the smallest model is looked for. None: `prune` and `quantize` say all.
        ties: Asked of the weights after pruning. Sizes are then those of the compressed file.
    """

    quantize: tuple[str, ...] = CONVERTED[:1]
    prune: float | None = None
    epochs: float = 10.0
    keep: float = 0.95
    budget: int | None = None
    ties: Ties = Ties()

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
        clusters, sparse = self.ties.clusters, self.ties.sparse
        if clusters is not None and not 2 <= clusters <= MOST_CLUSTERS:
            raise ValueError(f"--cluster {clusters} must lie between 2 and {MOST_CLUSTERS}: 16 keeps most models whole")
        if sparse is not None and not 0 < sparse[0] < sparse[1]:
            raise ValueError(f"--sparse {sparse[0]}:{sparse[1]} must keep fewer than all: 2:4 keeps two of each four")
        if self.budget is not None and self.prune is not None:
            raise ValueError("--prune must not be given with --budget, which looks for the rate: leave one out")


def request_of(
    quantize: Sequence[str],
    prune: float | None,
    epochs: float,
    budget: str | None,
    keep: float,
    cluster: int | None = None,
    sparse: str | None = None,
    offered: Sequence[str] = QUANTIZATIONS,
) -> Request:
    """The request that options mean; a search without --quantize tries everything that is offered.

    Raises:
        ValueError: One sentence for the user.

    >>> request_of([], None, 3, "2MB", 0.98).budget
    2000000
    >>> request_of([], None, 3, None, 0.98, 16, "2:4").ties
    Ties(clusters=16, sparse=(2, 4))
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
    kinds = tuple(dict.fromkeys(quantize)) or (CONVERTED[:1] if budget is None else tuple(offered))
    for kind in kinds:
        if kind in QUANTIZATIONS and kind not in offered:
            raise ValueError(
                f"--quantize {kind} is not for --runtime tfjs, which keeps only weights in fewer bits: choose one of "
                f"{', '.join(offered)}, or leave --runtime out"
            )
    kept = None
    if sparse is not None:
        if (found := re.fullmatch(r"([0-9]{1,3}):([0-9]{1,3})", sparse)) is None:
            raise ValueError(f"--sparse {sparse} must be two numbers as in 2:4, which keeps two of each four weights")
        kept = int(found[1]), int(found[2])
    request = Request(kinds, prune, epochs, keep, size, Ties(cluster, kept))
    request.check()
    return request
