"""The rows of the zoo's matrix, put together over several calls, as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.zoo_cells import ALONE, STATED, STRATEGIES, WHOLE, cells_of

_NOTES = {
    "movielens_retrieval": "The wrong answers of `movielens_retrieval` are those of a replica's own part of the batch, "
    "so its curve depends on their number.",
    "shakespeare_moe": "The loss that keeps the experts of `shakespeare_moe` equally busy is of a replica's own part "
    "of the batch, so its curve depends on their number.",
    "mnist_mobilenet": "Each replica normalises its own part of the batch, so the curves of networks with batch "
    "normalisation depend on their number, once such layers are trained. Cut in as many parts "
    "(`train.virtual_workers`), one device has the curve of the replicas to the bit (`docs/models/vision.md`).",
}
_RESULTS = ("config", "metric", "reached", "stated", "steps", "seconds", "measured")
_MATRIX = (
    "config", "strategy", "steps", "loss, first and last", "from one device", "killed, to the bit", "seconds",
    "measured",
)  # fmt: skip


def difference(row: Mapping[str, Any], alone: Mapping[str, Any] | None) -> float | None:
    """The largest difference of a logged loss from that of one device, as a share of it.

    None where either is missing or they are runs of other lengths.
    """
    if alone is None or "losses" not in row or "losses" not in alone or len(row["losses"]) != len(alone["losses"]):
        return None
    pairs = zip(row["losses"], alone["losses"], strict=True)
    return max(abs(one - other) / max(abs(other), 1e-9) for one, other in pairs)


def merged(before: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows in the order of config and strategy, each the newest."""
    newest = {(row["config"], row.get("strategy", "")): row for row in [*before, *rows]}
    order = ["", *STRATEGIES]
    return sorted(newest.values(), key=lambda row: (row["config"], order.index(row.get("strategy", ""))))


def head_of(machine: Mapping[str, Any], is_of_results: bool) -> str:
    """Title, command, hardware and versions of the newest call."""
    title = "Results of every config" if is_of_results else "Every config with every strategy"
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"# {title}, {machine['date']}\n\n`{' '.join(machine['command'])}` and calls like it; "
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_bytes'] / 1e9:.0f} GB, {machine['system']}; "
        f"Python {machine['python']}, {packages}. Seconds are of one run with its start, beside whatever else ran."
    )


def notes_on(rows: Sequence[Mapping[str, Any]], known: Sequence[str]) -> str:
    """What of the whole matrix is missing, and what must be said of what is there: paragraphs of the table's head."""
    there = {(row["config"], row["strategy"]) for row in rows}
    missing: dict[str, list[str]] = {}
    for config in known:
        cells = cells_of([config], list(STRATEGIES))
        absent = [cell.strategy for cell in cells if (config, cell.strategy) not in there]
        if absent:
            missing.setdefault("any strategy" if len(absent) == len(cells) else ", ".join(absent), []).append(config)
    shown = sorted({row["config"] for row in rows})
    notes = [_NOTES[config] for config in shown if config in _NOTES]
    notes = _changes(shown, ALONE) + notes
    if missing:
        parts = [f"with {what}: {', '.join(names)}" for what, names in missing.items()]
        notes.insert(0, f"Not run {'; '.join(parts)}.")
    exact = sum(row.get("ok", False) for row in rows)
    notes.insert(
        0, f"{len(there)} of {len(cells_of(known, list(STRATEGIES)))} cells, {exact} equal to the bit after a kill."
    )
    return "".join(f"\n\n{note}" for note in notes)


def _changes(configs: Sequence[str], changes: Mapping[str, Sequence[str]]) -> list[str]:
    changed = [f"{config} (`{' '.join(changes[config])}`)" for config in configs if config in changes]
    return [f"Run with changes: {'; '.join(changed)}."] if changed else []


def notes_on_results(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which configs that state a result have not been held against it."""
    shown = {row["config"] for row in rows}
    notes = _changes(sorted(shown), WHOLE)
    if missing := sorted(set(STATED) - shown):
        notes.insert(0, f"Not run: {', '.join(missing)}.")
    return "".join(f"\n\n{note}" for note in notes)


def table_of(rows: Sequence[Mapping[str, Any]], head: str) -> str:
    """Matrix or results as Markdown."""
    if rows and "metric" in rows[0]:
        return _markdown(head, _RESULTS, [_result(row) for row in rows])
    alone = {row["config"]: row for row in rows if row["strategy"] == "one_device"}
    return _markdown(head, _MATRIX, [_cell(row, alone.get(row["config"])) for row in rows])


def _result(row: Mapping[str, Any]) -> list[str]:
    return [
        row["config"],
        row["metric"],
        f"{row['value']:.4g}" if "value" in row else "failed",
        f"{row['goal']}{'' if row['ok'] else ' **short**'}",
        str(row.get("steps", "")),
        f"{row.get('seconds', float('nan')):.0f}",
        _measured(row),
    ]


def _cell(row: Mapping[str, Any], alone: Mapping[str, Any] | None) -> list[str]:
    begin = [row["config"], row["strategy"], str(row["steps"])]
    if "losses" not in row:
        return [*begin, "**failed**", "", "", "", _measured(row)]
    far = difference(row, alone)
    return [
        *begin,
        f"{row['losses'][0]:.4f} -> {row['losses'][-1]:.4f}",
        "" if far is None else f"{far:.1e}",
        "**differs**" if not row["equal_after_kill"] else "equal" if row["was_killed"] else "was too late",
        f"{row['seconds']:.0f}",
        _measured(row),
    ]


def _measured(row: Mapping[str, Any]) -> str:
    """When, and of which source code."""
    return f"{row['date']}, {row['commit'][:7]}" if row.get("commit") else row.get("date", "")


def _markdown(head: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
