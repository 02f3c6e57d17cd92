"""Searches for the smallest model that fits a budget and keeps a share of the quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from delivery.shrink.artefact import Artefact

RATES = (0.0, 0.5, 0.75, 0.85, 0.9, 0.93, 0.95, 0.965, 0.975, 0.985, 0.99)
"""Shares of hidden units to take out. Weights between hidden layers shrink with the square of what is left."""

_BYTES_PER_PARAMETER = {"float32": 4.0, "float16": 2.0, "dynamic": 1.0, "int8": 1.0, "int4": 0.5}


def fits(num_parameters: int, quantize: str, budget: int | None) -> bool:
    """Whether a file that holds the weights alone would fit, so that it is worth making."""
    return budget is None or _BYTES_PER_PARAMETER[quantize] * num_parameters <= budget


def search(
    make: Callable[[float], Sequence[Artefact]],
    num_parameters: Callable[[float], int],
    budget: int | None,
    quantize: Sequence[str],
    rates: Sequence[float] = RATES,
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

    Returns:
        Everything that was made.
    """
    sizes = {rate: num_parameters(rate) for rate in rates}
    fitting = [rate for rate in rates if any(fits(sizes[rate], kind, budget) for kind in quantize)]
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


def best_of(artefacts: Sequence[Artefact], budget: int | None) -> Artefact | None:
    """The smallest artefact that passed its gates and fits; None where there is none."""
    fitting = [
        artefact
        for artefact in artefacts
        if artefact.refused is None and artefact.size is not None and (budget is None or artefact.size <= budget)
    ]
    return min(fitting, key=lambda artefact: artefact.size or 0, default=None)
