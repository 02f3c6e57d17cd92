"""`phalanx data inspect` and `validate`: opens a config's training data, writes what was found, tells it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launch.config import RunConfig
from launch.quiet_start import import_tensorflow
from trainer.atomic_file import write_whole
from trainer.config.data import DataConfig
from trainer.config.mixture import MixtureData
from trainer.observe.number_text import format_number
from trainer.run_folder import RunFolder

if TYPE_CHECKING:
    from trainer.data.source import Source
    from trainer.inspection.inspection import FeatureValues, Inspection
    from trainer.inspection.validation import Validation

MOST_LEFT_OUT = 1_000_000
"""Bad records that are named rather than that the first one ends the look."""

_MOST_ROWS = 60
_MOST_CLASSES = 8
_WIDEST = 40


class Inspected(NamedTuple):
    """What was found, and the files that hold it."""

    inspection: "Inspection"
    file: Path
    page: Path


def inspect_data(config: RunConfig, most: int | None = None, folder: Path | None = None) -> Inspected:
    """Looks at the training data once, and writes the values and a page of their distributions.

    Args:
        config: Of the run.
        most: Samples to read; without it, as many as `trainer.inspection.reading` allows.
        folder: Where to write; without it, the run folder.

    Raises:
        DataError: The data are not there or cannot be read.
        RunFolderError: The folder cannot be written to.
    """
    import_tensorflow()
    from trainer.inspection.inspection import inspect_source
    from trainer.inspection.page import render

    found = inspect_source(_open_leniently(config), config.data.name, most)
    place = RunFolder(folder or config.run.folder)
    place.create()
    write_whole(place.inspection, found.model_dump_json(indent=2) + "\n")
    write_whole(place.inspection_page, render(found, config.run.name))
    return Inspected(found, place.inspection, place.inspection_page)


def validate_data(config: RunConfig, most: int | None = None, against: Path | None = None) -> "Validation":
    """Holds the training data against the rules of an inspection.

    Args:
        config: Of the run.
        most: Samples to read; without it, as many as `trainer.inspection.reading` allows.
        against: The file of the inspection; without it, that in the run folder.

    Raises:
        ValueError: There is no inspection.
    """
    import_tensorflow()
    from trainer.data.checks import DataError
    from trainer.inspection.inspection import read_inspection
    from trainer.inspection.validation import Validation, of_error, validate_source

    file = against or RunFolder(config.run.folder).inspection
    rules = read_inspection(file).rules
    try:
        source = _open_leniently(config)
    except DataError as error:
        found = of_error(error)
        return Validation(0, 0, (found,), {(found.check, found.feature): 1})
    return validate_source(source, rules, file, most)


def _open_leniently(config: RunConfig) -> "Source":
    """The training data, read once and without a cache; bad records are left out and listed."""
    from trainer.data.registry import open_source

    return open_source(_lenient(config.data), "train")


def _lenient(data: DataConfig) -> DataConfig:
    if isinstance(data, MixtureData):
        parts = tuple(one.model_copy(update={"data": _lenient(one.data)}) for one in data.sources)
        return data.model_copy(update={"sources": parts})
    return data.model_copy(update={"skip_bad_records": MOST_LEFT_OUT, "cache": "none"})


def describe_inspection(inspected: Inspected) -> str:
    """A short table, and where the files are."""
    found = inspected.inspection
    how = "all" if found.is_complete else f"{found.read:,} of"
    spread = "" if found.is_complete else ", evenly by position (--samples reads more)"
    lines = [f"{how} {found.total:,} samples of data.name={found.source}{spread}", ""]
    lines += _table(found.features)
    if len(found.features) > _MOST_ROWS:
        lines.append(f"and {len(found.features) - _MOST_ROWS:,} more features")
    lines.append("")
    if found.balance:
        lines.append(f"label {found.target}: {_balance(found.balance)}")
    if found.duplicates.count:
        later, first = found.duplicates.examples[0]
        lines.append(f"duplicates: {found.duplicates.count:,} samples equal an earlier one ({later} equals {first})")
    else:
        lines.append("duplicates: none")
    if found.left_out:
        one = found.left_out_examples[0]
        place = ", ".join(filter(None, [one.file, one.record]))
        lines.append(f"left out: {found.left_out:,} records that break a rule ({place}: {one.rule})")
    return "\n".join([*lines, f"values and rules: {inspected.file}", f"distributions: {inspected.page}"])


def _table(features: "dict[str, FeatureValues]") -> list[str]:
    from trainer.inspection.page import distinct_text, type_text

    rows: list[tuple[str, ...]] = [
        ("feature", "type", "min", "max", "mean", "std", "missing", "distinct", "most frequent")
    ]
    for name, values in list(features.items())[:_MOST_ROWS]:
        numbers = [
            "-" if one is None else format_number(one) for one in (values.min, values.max, values.mean, values.std)
        ]
        frequent = ", ".join(value for value, _ in values.frequent[:3]) or "-"
        distinct = "-" if values.distinct is None else distinct_text(values)
        missing = f"{100 * values.missing:.3g}%"
        rows.append((_cut(name), type_text(values), *numbers, missing, distinct, _cut(frequent)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    is_text = (0, 1, len(widths) - 1)
    return [
        "  ".join(
            cell.ljust(width) if column in is_text else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def _balance(balance: dict[str, int]) -> str:
    total = max(sum(balance.values()), 1)
    shown: Sequence[tuple[str, int]] = sorted(balance.items(), key=lambda item: -item[1])[:_MOST_CLASSES]
    text = ", ".join(f"{name} {100 * count / total:.3g}%" for name, count in shown)
    return text if len(balance) <= _MOST_CLASSES else f"{text}, and {len(balance) - _MOST_CLASSES:,} more classes"


def describe_validation(found: "Validation") -> str:
    """A line for each rule broken, and a last one that says how many samples were looked at."""
    lines = [finding.line() for finding in found.findings]
    for (check, feature), count in found.unlisted().items():
        lines.append(f"and {count:,} more of {check}{f' in {feature!r}' if feature else ''}")
    broken = sum(found.counts.values())
    looked = f"{found.read:,} of {found.total:,} samples looked at"
    lines.append(f"{looked}: {'every rule is kept' if found.ok else f'{broken:,} times a rule is broken'}")
    return "\n".join(lines)
