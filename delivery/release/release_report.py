"""The report of a release: for the terminal, as JSON, and as Markdown that stays in the repository."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from delivery.release.release import ReleaseResult, Repository

_MARKS = {"passed": "ok", "refused": "REFUSED", "skipped": "skipped"}


def as_document(result: ReleaseResult) -> dict[str, Any]:
    """The report as JSON holds it."""
    return {
        "released": result.is_released,
        "name": result.name,
        "alias": result.alias,
        "candidate": result.candidate,
        "current": result.current,
        "decided_by": list(result.decided),
        "time": result.time,
        "gates": [asdict(gate) for gate in result.gates],
    }


def as_text(result: ReleaseResult) -> str:
    """The report for a terminal."""
    lines = [f"{_MARKS[gate.verdict]:<8} {gate.gate:<11} {gate.reason}" for gate in result.gates]
    return "\n".join([*lines, _conclusion(result)])


def as_markdown(result: ReleaseResult) -> str:
    """The report to keep."""
    lines = [
        f"# {result.name} {result.candidate} to {result.alias}",
        "",
        f"{result.time}. {_conclusion(result)[:1].upper()}{_conclusion(result)[1:]}.",
        "",
        "| gate | verdict | why |",
        "|---|---|---|",
        *(f"| {gate.gate} | {gate.verdict} | {_cell(gate.reason)} |" for gate in result.gates),
        "",
    ]
    for gate in result.gates:
        if rows := gate.figures.get("slices"):
            lines += ["| slice | samples | candidate | in use |", "|---|---|---|---|"]
            for row in rows:
                current = f"{row['current']:.4g}" if "current" in row else "-"
                lines.append(f"| {_cell(row['slice'])} | {row['samples']} | {row['candidate']:.4g} | {current} |")
            lines.append("")
    return "\n".join(lines)


def keep_report(repository: Repository, result: ReleaseResult) -> str:
    """Keeps the Markdown report of a release beside the others of its model; returns its path or address.

    Raises:
        OSError: It cannot be written.
    """
    moment = result.time.replace(":", "").replace("-", "")
    return repository.keep_report(result.name, f"{moment}-{result.alias}-{result.candidate}.md", as_markdown(result))


def _conclusion(result: ReleaseResult) -> str:
    if result.is_released:
        before = "nothing" if result.current is None else f"version {result.current}"
        return f"{result.alias} of {result.name} is version {result.candidate} now, before that {before}"
    return f"version {result.candidate} was not released: {', '.join(result.decided)} decided"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
