"""The rows of benchmarks/tpu_check.py from several calls, as one table for people.

All models on all slices take hours of a core, so that they are compiled in several calls; a row has its own date.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.observe.number_text import format_bytes

Row = Mapping[str, Any]

_COLUMNS = (
    "model", "slice", "replicas", "batch", "HBM", "of what a device has", "reduced in a step", "GFLOP a step",
    "step at least", "by", "compiled",
)  # fmt: skip


def rows_of(files: Iterable[Path]) -> dict[tuple[str, str], Row]:
    """The rows of result files by model and slice; where two files have one, the newest, of these that of the last."""
    rows: dict[tuple[str, str], Row] = {}
    for file in files:
        result = json.loads(file.read_text())
        for row in result["figures"]["rows"]:
            row.setdefault("date", result["machine"]["date"])
            key = row["model"], row["topology"]
            if key not in rows or rows[key]["date"] <= row["date"]:
                rows[key] = row
    return rows


def in_order(rows: Mapping[tuple[str, str], Row], models: Sequence[str], slices: Sequence[str]) -> list[Row]:
    """Those of the zoo as it is now, a model after the other."""
    return [rows[model, topology] for model in models for topology in slices if (model, topology) in rows]


def markdown(rows: Sequence[Row], machine: Mapping[str, Any], models: Mapping[str, str], slices: Sequence[str]) -> str:
    """The table, what each model was, and what is missing.

    Args:
        rows: In their order.
        machine: As written beside the rows.
        models: What of the zoo was compiled, by model.
        slices: All that belong to the table.
    """
    lines = [
        f"# Models of the zoo compiled for TPU slices, {machine['date']}",
        "",
        "`python -m benchmarks.tpu_check`, mixed_bfloat16, the compiler's quick level (temporaries overstated), libtpu "
        f"{machine['compiler']['libtpu']}.",
        "Memory, FLOP and bytes are of one replica; the bound is the chip's peak and no measurement.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|" + "---|" * len(_COLUMNS),
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
        "",
        "What was compiled:",
        "",
        *(f"- {model}: {what}" for model, what in models.items()),
    ]
    made = {(row["model"], row["topology"]) for row in rows}
    missing = [f"{model} {topology}" for model in models for topology in slices if (model, topology) not in made]
    if missing:
        lines += ["", f"Not compiled: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    head = [row["model"], row["topology"]]
    if not row["ok"]:
        return [*head, "", str(row["batch_size"]), *[""] * 6, row["problems"][0]]
    hbm, bounds = row["hbm"], row["roofline"]
    reduced = sum(collective["bytes"] for collective in row["collectives"])
    return [
        *head,
        str(row["devices"]),
        str(row["batch_size"]),
        format_bytes(hbm["needed_bytes"]),
        f"{100 * hbm['needed_bytes'] / hbm['usable_bytes']:.1f}%",
        format_bytes(reduced) if reduced else "nothing",
        f"{row['flops'] / 1e9:.2f}",
        f"{1e6 * bounds['bound_s']:.3g} us",
        bounds["limit"],
        row["date"],
    ]
