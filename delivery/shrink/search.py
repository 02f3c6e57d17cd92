"""Searches for the smallest model that fits a budget and keeps a share of the quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from delivery.shrink.artefact import Artefact
from delivery.shrink.request import Ties

RATES = (0.0, 0.5, 0.75, 0.85, 0.9, 0.93, 0.95, 0.965, 0.975, 0.985, 0.99)
"""Shares of hidden units to take out. Weights between hidden layers shrink with the square of what is left."""

_BYTES_PER_PARAMETER = {"float32": 4.0, "float16": 2.0, "dynamic": 1.0, "int8": 1.0, "int4": 0.5}


_COMPRESSION = 0.5
"""What is left of weights at best: they are no text, and a value that is frequent saves a bit or two."""


def fits(
    num_parameters: int, quantize: str, budget: int | None, ties: Ties | None = None, compressed: bool = False
) -> bool:
    """Whether a file that holds the weights alone could fit, so that it is worth making.

    >>> fits(1000, "int8", 800), fits(1000, "int8", 800, compressed=True), fits(1000, "int8", 200, Ties(2), True)
    (False, True, True)
    """
    size = _BYTES_PER_PARAMETER[quantize] * num_parameters
    if compressed:
        size = _COMPRESSION * (min(size, num_parameters * ties.bits / 8) if ties else size)
    return budget is None or size <= budget


def search(
    make: Callable[[float], Sequence[Artefact]],
    num_parameters: Callable[[float], int],
    budget: int | None,
    quantize: Sequence[str],
    rates: Sequence[float] = RATES,
    ties: Ties | None = None,
) -> list[Artefact]:
    """Halves the range of pruning rates until it knows the highest at which some artefact passes its gates.

    Each rate costs a fine-tuning, so rates at which no quantisation can fit are left out, and of the others
    about log2 are tried.

    Args:
        make: Makes all artefacts of a rate, refused ones included.
        num_parameters: Of the model that a rate leaves.
        budget: Most bytes; None for as small as can be.
        quantize: The quantisations that `make` makes.
        rates: Ascending.
        ties: That weights get too; the budget is of the compressed file then.

    Returns:
        Everything that was made.
    """
    sizes = {rate: num_parameters(rate) for rate in rates}
    fitting = [rate for rate in rates if any(fits(sizes[rate], kind, budget, ties, bool(ties)) for kind in quantize)]
    made: list[Artefact] = []
    low, high = 0, len(fitting)
    while low < high:
        middle = (low + high) // 2
        artefacts = make(fitting[middle])
        made += artefacts
        if any(artefact.refused is None for artefact in artefacts):
            low = middle + 1
        else:
            high = middle
    return made


def best_of(artefacts: Sequence[Artefact], budget: int | None, compressed: bool = False) -> Artefact | None:
    """The smallest artefact, by its file or by that compressed, that passed its gates and fits; None: there is none."""
    fitting = [
        (size, index)
        for index, artefact in enumerate(artefacts)
        if artefact.refused is None
        and (size := artefact.size_as(compressed)) is not None
        and (budget is None or size <= budget)
    ]
    return artefacts[min(fitting)[1]] if fitting else None
