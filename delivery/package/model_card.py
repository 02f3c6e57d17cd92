"""The model card: what the model is, what it learned from, how good it is, and where it ends. As JSON and to read.

After Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.config.training import TrainingConfig
from trainer.data.source import Schema

_FEW = 30  # held-out samples of a class, below which its figures say little
_MOST_CLASSES = 200  # rows of the table to read; the JSON holds all


def model_card(
    config: TrainingConfig,
    schema: Schema,
    *,
    name: str,
    version: int,
    created: str,
    facts: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    held_out: Mapping[str, Any],
    num_held_out: int,
    environment: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The card as JSON holds it.

    Args:
        config: Of the run.
        schema: Of the training data.
        name: Of the model.
        version: Of the model.
        created: When, ISO 8601.
        facts: What the export's description says.
        evaluation: The run's own evaluation of this step over the whole split; None where there is none.
        held_out: From `held_out_metrics`, measured through the exported model.
        num_held_out: Samples of the whole held-out split.
        environment: What the run stored of its circumstances.
    """
    known = environment or {}
    return {
        "name": name,
        "version": version,
        "created": created,
        "model": {key: facts.get(key) for key in ("run", "model", "task", "step", "weights", "precision")},
        "data": {
            "name": config.data.name,
            "training_samples": schema.num_samples,
            "held_out_samples": num_held_out,
            "target": schema.target,
            "classes": list(schema.class_names) if schema.class_names else schema.num_classes,
            "features": {key: {"dtype": it.dtype, "shape": list(it.shape)} for key, it in schema.features.items()},
        },
        "signatures": facts["signatures"],
        "evaluation": evaluation,
        "decision": facts.get("decision"),
        "held_out": dict(held_out),
        "parity": {"largest_difference": facts["largest_difference"], "samples": facts["num_samples"]},
        "limits": _limits(config, schema, facts, held_out, num_held_out),
        "config": config.model_dump(mode="json"),
        "environment": {key: known.get(key) for key in ("python", "packages", "git", "system", "cpu")},
    }


def card_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    model, data, held_out = card["model"], card["data"], card["held_out"]
    lines = [
        f"# {_cell(card['name'])} {card['version']}",
        "",
        f"{_cell(model['model'])} for {_cell(model['task'])}, step {model['step']} of the run {_cell(model['run'])}, "
        f"{model['weights']} weights, {model['precision']}. Made {card['created']}.",
        "",
        "## Data",
        "",
        f"- {_cell(data['name'])}: {data['training_samples']} training samples, {data['held_out_samples']} held out",
        f"- target: {_cell(data['target'] or 'the next token')}",
        "",
        "| feature | type | shape |",
        "|---|---|---|",
        *(f"| {_cell(key)} | {it['dtype']} | {it['shape']} |" for key, it in data["features"].items()),
        "",
        "## Signatures",
        "",
        *(
            f"- `{key}`: {_tensors(it['inputs'])} to {_tensors(it['outputs'])}"
            for key, it in card["signatures"].items()
        ),
        "",
        "## Metrics",
        "",
    ]
    if evaluation := card["evaluation"]:
        lines += [
            f"The run's evaluation at step {evaluation['step']} ({_cell(evaluation['split'])}): {_metrics(evaluation)}",
            "",
        ]
    if decision := card["decision"]:
        lines += [
            f"A sample counts as {_cell(decision['class'])} from the probability {decision['threshold']:.4g} on. The "
            "threshold was found on one half of the held-out samples; on the other half its precision is "
            f"{_figure(decision['precision'])} and its recall {_figure(decision['recall'])}.",
            "",
        ]
    if metrics := held_out.get("metrics"):
        lines += [f"Through the exported model, on {held_out['samples']} held-out samples: {_metrics(metrics)}", ""]
    if by_class := held_out.get("by_class"):
        lines += ["| class | precision | recall | F1 | samples |", "|---|---|---|---|---|"]
        for key, row in list(by_class.items())[:_MOST_CLASSES]:
            figures = " | ".join(_figure(row[column]) for column in ("precision", "recall", "f1"))
            lines.append(f"| {_cell(key)} | {figures} | {row['support']} |")
        lines.append("")
    lines += ["## Limits", "", *(f"- {sentence}" for sentence in card["limits"]), ""]
    environment = card["environment"]
    packages = ", ".join(f"{key} {value}" for key, value in (environment["packages"] or {}).items())
    lines += ["## Environment", "", f"Python {environment['python']}; {packages}; {_cell(environment['system'])}", ""]
    return "\n".join(lines)


def _limits(
    config: TrainingConfig, schema: Schema, facts: Mapping[str, Any], held_out: Mapping[str, Any], num_held_out: int
) -> list[str]:
    limits = [
        "The figures hold for data like the held-out samples; assets.extra/training_sample.npz shows what the model "
        "has seen, and serving can compare live inputs with it."
    ]
    if held_out["samples"] < num_held_out:
        limits.append(f"Classes and metrics were measured on {held_out['samples']} of {num_held_out} held-out samples.")
    by_class: Mapping[str, Any] = held_out.get("by_class") or {}
    rare = [_cell(name) for name, row in by_class.items() if row["support"] < _FEW]
    if rare:
        limits.append(f"Fewer than {_FEW} held-out samples stand for {_listed(rare)}: their figures say little.")
    known = {name: row["f1"] for name, row in by_class.items() if row["f1"] is not None}
    if len(known) > 1:
        worst = min(known, key=lambda name: known[name])
        limits.append(f"The class with the lowest F1 is {_cell(worst)} ({known[worst]:.3f}).")
    hashed = [_cell(name) for name, feature in schema.features.items() if feature.hash_buckets]
    if any(feature.vocabulary for feature in schema.features.values()):
        limits.append("Categories that training never saw count as missing.")
    if hashed:
        limits.append(f"Names of {_listed(hashed)} are hashed: one that training never saw counts as another one.")
    if config.task.name == "language_modelling":
        limits.append("Sequences longer than the context of training are refused.")
    if config.precision != "float32":
        limits.append(f"It computes in {config.precision}: answers differ in the last digits from machine to machine.")
    return limits


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _metrics(metrics: Mapping[str, Any]) -> str:
    figures = {key: value for key, value in metrics.items() if key not in ("step", "split", "time")}
    return ", ".join(f"{_cell(key)} {_figure(value)}" for key, value in figures.items())


def _tensors(specs: Mapping[str, Any]) -> str:
    return ", ".join(f"{_cell(key)} {it['dtype']} {it['shape']}" for key, it in specs.items())


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _cell(value: object) -> str:
    """A name from data or config as a cell of a table: nothing in it may draw lines, links or markup."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return "".join(f"\\{letter}" if letter in "\\`*[]<>|#" else letter for letter in text)
