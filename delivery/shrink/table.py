"""The result table of a shrinking as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delivery.shrink.artefact import Artefact
from delivery.shrink.reference import Quality
from trainer.atomic_file import write_whole
from trainer.environment import describe_environment
from trainer.observe.number_text import format_bytes

_COLUMNS = ("model", "parameters", "size", "compressed", "quality", "kept", "difference", "latency", "")


def table_of(artefacts: Sequence[Artefact], original: Quality, chosen: Artefact | None = None) -> str:
    """Aligned text; a refused artefact says why on a line of its own."""
    rows = [_COLUMNS] + [_row(artefact, artefact is chosen) for artefact in artefacts]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [f"trained model: {original.name} {original.value:.4g}"]
    for row, artefact in zip(rows, [None, *artefacts], strict=True):
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)),
        ]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
        if artefact is not None and artefact.refused:
            lines.append(f"    {artefact.refused}")
    return "\n".join(lines)


def _row(artefact: Artefact, is_chosen: bool) -> tuple[str, ...]:
    def text(value: Any, form: str) -> str:
        return "" if value is None else form.format(value)

    return (
        artefact.name,
        f"{artefact.num_parameters:,}",
        "" if artefact.size is None else format_bytes(artefact.size),
        "" if artefact.compressed_size is None else format_bytes(artefact.compressed_size),
        text(artefact.quality.value if artefact.quality else None, "{:.4f}"),
        text(artefact.share, "{:.1%}"),
        text(artefact.difference, "{:.1e}"),
        text(None if artefact.latency_s is None else 1e3 * artefact.latency_s, "{:.3f} ms"),
        "refused" if artefact.refused else "chosen" if is_chosen else "",
    )


def write_results(
    folder: Path,
    artefacts: Sequence[Artefact],
    original: Quality,
    chosen: Artefact | None,
    description: dict[str, Any],
    command: Sequence[str],
) -> None:
    """Writes `results.json` and `results.txt`.

    Args:
        folder: Exists.
        artefacts: All, refused ones included.
        original: Quality of the trained model.
        chosen: The best that fits, where one was looked for.
        description: Of the run, and of inputs and outputs.
        command: That was typed.
    """
    environment = {name: value for name, value in describe_environment(command).items() if name != "folder"}
    results = {
        **description,
        "trained": {"metric": original.name, "value": original.value},
        "chosen": chosen.name if chosen else None,
        "artefacts": [artefact.as_json() for artefact in artefacts],
        "environment": environment,
    }
    write_whole(folder / "results.json", json.dumps(results, indent=2) + "\n")
    write_whole(folder / "results.txt", table_of(artefacts, original, chosen) + "\n")
