"""Looks at the samples of a source again and names everything that breaks the rules of an inspection.

Shape legend: B batch.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from trainer.data.checks import SKIP_HINT, DataError
from trainer.data.source import Schema, SkippedRecord, Source
from trainer.inspection.broken_rule import parse_rule
from trainer.inspection.reading import chosen_positions, read_batches
from trainer.inspection.rules import FeatureRule, Rules
from trainer.inspection.sketches import Fingerprints
from trainer.inspection.values import Kind, flat_values, kind_of, naming

MOST_LISTED = 20
"""Findings of one rule of one feature that are listed; the others are counted."""

_MOST_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One rule broken.

    Attributes:
        check: Which rule: "schema", "record", "finite", "range", "names" or "duplicate".
        feature: Empty where the rule is about the whole sample.
        value: As it stands in the data, categories by name; empty where there is no single one.
        position: Of the sample in the source; None for a record that the source left out, and for the source itself.
        record: File and record as far as the source knows them.
        rule: What is wrong.
        change: What to do.
    """

    check: str
    feature: str
    value: str
    position: int | None
    record: str
    rule: str
    change: str

    def line(self) -> str:
        """As one line for people."""
        place = ", ".join(filter(None, [self.record, f"position {self.position}" if self.position is not None else ""]))
        return f"{place}: {self.rule}: {self.change}" if place else f"{self.rule}: {self.change}"


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Attributes:
        total: Samples in the source.
        read: Samples that were looked at.
        findings: At most `MOST_LISTED` for each rule and feature.
        counts: All of them, by rule and feature.
    """

    total: int
    read: int
    findings: tuple[Finding, ...]
    counts: dict[tuple[str, str], int]

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return not self.counts

    def unlisted(self) -> dict[tuple[str, str], int]:
        """By rule and feature, how many findings are counted and not listed."""
        listed = Counter((one.check, one.feature) for one in self.findings)
        return {key: count - listed[key] for key, count in self.counts.items() if count > listed[key]}

    def as_json(self) -> dict[str, object]:
        """As one JSON object."""
        counts = [
            {"check": check, "feature": feature, "count": count} for (check, feature), count in self.counts.items()
        ]
        findings = [asdict(finding) for finding in self.findings]
        return {"ok": self.ok, "total": self.total, "read": self.read, "counts": counts, "findings": findings}


def validate_source(source: Source, rules: Rules, file: object, most: int | None = None) -> Validation:
    """Holds the samples of a source against the rules, in one pass.

    Args:
        source: What to read; it leaves bad records out rather than fail, so that all of them are named.
        rules: Of an inspection.
        file: That holds the rules, for messages.
        most: Samples to read; without it, as `chosen_positions` says.
    """
    findings = _Findings(source.locate)
    checks = _checks(source.schema, rules, file, findings)
    prints, num_read = Fingerprints(), 0
    try:
        for part, batch in read_batches(source, chosen_positions(source.schema, most)):
            num_read += len(part)
            prints.add(batch, part)
            for check in checks:
                check.look(part, batch[check.name])
    except DataError as error:
        findings.add(of_error(error))
    for record in source.skipped.records():
        findings.add(_of_record(record))
    _look_for_duplicates(prints, num_read, rules, file, findings)
    total = source.schema.num_samples + (0 if source.may_skip else len(source.skipped))
    return Validation(total, num_read, tuple(findings.listed), dict(findings.counts))


def of_error(error: DataError) -> Finding:
    """The finding that a source cannot be opened, or not be read on."""
    return Finding(
        "schema", "", "", None, ", ".join(filter(None, [error.file, error.record])), error.rule, error.change
    )


class _Findings:
    """Lists the first findings of each rule and feature, and counts all."""

    def __init__(self, locate: Callable[[int], str]) -> None:
        self.listed: list[Finding] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self._locate = locate

    def add(self, finding: Finding) -> None:
        key = finding.check, finding.feature
        self.counts[key] += 1
        if self.counts[key] <= MOST_LISTED:
            self.listed.append(finding)

    def add_samples(
        self,
        check: str,
        feature: str,
        positions: np.ndarray,
        value: Callable[[int], str],
        rule: Callable[[str], str],
        change: str,
    ) -> None:
        """Adds one finding for each of these samples: `value` gives that of the i-th, and `rule` the sentence of it."""
        left = max(0, MOST_LISTED - self.counts[check, feature])
        for i, position in enumerate(positions[:left].tolist()):
            record, said = self._locate(position), value(i)
            self.add(Finding(check, feature, said, position, record, rule(said), change))
        self.counts[check, feature] += max(0, len(positions) - left)

    def add_duplicate(self, later: int, first: int, change: str) -> None:
        """Adds that the sample at `later` equals the one at `first`."""
        sentence = f"the sample equals {self.place(first)} in every feature"
        self.add(Finding("duplicate", "", "", later, self._locate(later), sentence, change))

    def place(self, position: int) -> str:
        """File and record of a sample, and its position."""
        return f"{self._locate(position)} (position {position})"


@dataclass(frozen=True)
class _FeatureCheck:
    """Holds the values of one feature against its rule."""

    name: str
    kind: Kind
    subject: str  # "feature 'age'"
    rule: FeatureRule
    allowed: frozenset[str] | None
    naming: Callable[[int | str], str]
    file: object
    findings: _Findings

    def look(self, positions: np.ndarray, values: np.ndarray) -> None:
        """Looks at the values [B, ...] of the samples at `positions`, [B]."""
        rows = flat_values(values, self.kind).reshape(len(values), -1)
        if self.kind == "number":
            self._report("finite", positions, rows, ~np.isfinite(rows), "must be a finite number", "correct the record")
        if self.rule.range is not None and self.kind != "text":
            low, high = self.rule.range
            with np.errstate(invalid="ignore"):
                outside = (rows < low) | (rows > high)
            outside &= np.isfinite(rows) if self.kind == "number" else True
            change = f"correct the record, or widen {self._setting('range')}"
            self._report("range", positions, rows, outside, f"must lie in {low:g}..{high:g}", change)
        if self.kind != "number":
            self._look_at_names(positions, rows)

    def _look_at_names(self, positions: np.ndarray, rows: np.ndarray) -> None:
        if self.kind == "category":
            missing = (rows == 0) & (not self.rule.may_miss)
            change = f"name it in the record, or set {self._setting('may_miss')} to true"
            self._report("names", positions, rows, missing, "must be a known category", change)
        if self.allowed is None:
            return
        codes = np.unique(rows)
        foreign = [code for code in codes.tolist() if self.naming(code) not in self.allowed]
        if self.kind == "category":
            foreign = [code for code in foreign if code != 0]
        if not foreign:
            return
        shown = ", ".join(itertools.islice(self.rule.names or (), _MOST_NAMED))
        more = ", ..." if len(self.rule.names or ()) > _MOST_NAMED else ""
        noun = {"category": "categories", "class": "classes"}.get(self.kind, "values")
        change = f"correct the record, or add the name to {self._setting('names')}"
        rule = f"must be one of the {noun} {shown}{more}"
        self._report("names", positions, rows, np.isin(rows, np.array(foreign, rows.dtype)), rule, change)

    def _report(
        self, check: str, positions: np.ndarray, rows: np.ndarray, broken: np.ndarray, rule: str, change: str
    ) -> None:
        """A finding for each row with a broken value: the first one of them."""
        found = np.flatnonzero(broken.any(axis=1))
        if not len(found):
            return
        first = broken[found].argmax(axis=1)

        def value(i: int) -> str:
            one = rows[found[i], first[i]].item()
            if self.kind == "number":
                return "NaN" if math.isnan(one) else f"{one:.6g}"
            return self.naming(one)

        self.findings.add_samples(
            check, self.name, positions[found], value, lambda said: f"{self.subject} is {said}, which {rule}", change
        )

    def _setting(self, key: str) -> str:
        return f"rules.features.{self.name}.{key} in {self.file}"


def _checks(schema: Schema, rules: Rules, file: object, findings: _Findings) -> list[_FeatureCheck]:
    """The checks of the features that are as the rules have them; the others are found at once."""
    checks = []
    for name in [*rules.features, *(name for name in schema.features if name not in rules.features)]:
        rule, feature = rules.features.get(name), schema.features.get(name)
        subject = f"{'label' if name == schema.target else 'feature'} {name!r}"
        if rule is None or feature is None:
            what = "is not in the data" if feature is None else "is not among the rules"
            change = f"store it, or take rules.features.{name} out of {file}"
            if rule is None:
                change = f"take it out of the data, or write {file} anew with phalanx data inspect"
            findings.add(Finding("schema", name, "", None, "", f"{subject} {what}", change))
        elif (feature.dtype, feature.shape) != (rule.dtype, rule.shape):
            found = f"{feature.dtype} of shape {list(feature.shape)}"
            sentence = f"{subject} is {found}, which must be {rule.dtype} of shape {list(rule.shape)}"
            change = f"store it as before, or write {file} anew with phalanx data inspect"
            findings.add(Finding("schema", name, found, None, "", sentence, change))
        else:
            allowed = None if rule.names is None else frozenset(rule.names)
            kind = kind_of(name, schema)
            checks.append(_FeatureCheck(name, kind, subject, rule, allowed, naming(name, schema), file, findings))
    return checks


def _of_record(record: SkippedRecord) -> Finding:
    broken = parse_rule(record.rule)
    place = ", ".join(filter(None, [record.file, record.record]))
    return Finding("record", broken.feature, broken.value, None, place, record.rule, SKIP_HINT)


def _look_for_duplicates(prints: Fingerprints, num_read: int, rules: Rules, file: object, findings: _Findings) -> None:
    pairs = prints.duplicates()
    share = len(pairs) / max(num_read, 1)
    if share <= rules.duplicates:
        return
    change = f"take it out, or raise rules.duplicates={rules.duplicates:g} in {file}"
    if rules.duplicates == 0:
        for later, first in pairs:
            findings.add_duplicate(later, first, change)
        return
    later, first = pairs[0]
    sentence = (
        f"{len(pairs):,} of {num_read:,} samples ({share:.4g}) equal an earlier one, of which at most the share "
        f"{rules.duplicates:.4g} may; the first is {findings.place(later)}, which equals {findings.place(first)}"
    )
    change = f"take them out, or raise rules.duplicates in {file}"
    findings.add(Finding("duplicate", "", f"{share:.6g}", None, "", sentence, change))
