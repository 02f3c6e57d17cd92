"""The metric that finds the best checkpoint: whether there is such a one, and which of two values is the better one."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Literal

_ERRORS = frozenset(("loss", "error", "perplexity", "mse", "rmse", "mae", "smape", "mase", "wape", "bits"))


def lower_is_better(metric: str, mode: Literal["auto", "max", "min"] = "auto") -> bool:
    """Whether the smaller of two values of a metric is the better one; `auto` goes by a word of its name.

    >>> lower_is_better("token_loss"), lower_is_better("rmse"), lower_is_better("bits_per_byte")
    (True, True, True)
    >>> lower_is_better("macro_f1"), lower_is_better("mae", "max")
    (False, False)
    """
    if mode != "auto":
        return mode == "min"
    words = metric.lower().replace("-", "_").split("_")
    return not _ERRORS.isdisjoint(words)


def check_best_metric(wanted: str | None, known: Collection[str]) -> None:
    """Makes sure that evaluations have the metric of `checkpoint.best_metric`.

    Raises:
        ValueError: they do not.
    """
    if wanted is None or wanted in known:
        return
    guess = difflib.get_close_matches(wanted, known, n=1, cutoff=0.6)
    change = f"did you mean {guess[0]}?" if guess else "choose one of these"
    raise ValueError(f"checkpoint.best_metric={wanted} must be one of {', '.join(sorted(known))}: {change}")
