"""`phalanx drift MODEL --samples FILE`: whether samples still look like what a model was trained on."""

import json
from pathlib import Path
from typing import Annotated

import typer


def drift(
    model: Annotated[Path, typer.Argument(help="Exported model, such as runs/mnist/export/1.")],
    samples: Annotated[
        Path, typer.Option("--samples", help="An .npz of raw features by name, and of prediction:NAME where known.")
    ],
    html: Annotated[Path | None, typer.Option("--html", help="Write a page of training and samples here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare samples with the training sample that an exported model carries."""
    from delivery.drift.offline import compare
    from delivery.drift.report import drift_page

    monitor, found = compare(model, samples)
    if html is not None:
        html.write_text(drift_page(str(model), monitor, found), encoding="utf-8")
    if as_json:
        columns = {name: vars(one) for name, one in found.scores.items()}
        typer.echo(json.dumps({"samples": found.num_seen, "drifted": found.alarms, "columns": columns}))
        return
    for name, one in found.scores.items():
        ks = "" if one.ks is None else f"  ks {one.ks:.3f}"
        typer.echo(
            f"{'drifted' if one.alarm else 'stable':<8} {name}  psi {one.psi:.3f} (limit {one.psi_limit:.3f}){ks}"
        )
    for name in found.missing:
        typer.echo(f"missing  {name}")
