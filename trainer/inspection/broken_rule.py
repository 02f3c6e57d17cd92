"""What a source's sentence about a bad record says: which feature, and which value (`trainer.data.checks.bad_rows`)."""

from __future__ import annotations

import re
from typing import NamedTuple

_SENTENCE = re.compile(
    r"""(?:feature|label)\ (?P<quote>['"])(?P<feature>.*?)(?P=quote):?\ """
    r"(?:is (?P<missing>missing)|holds (?P<infinite>NaN|an infinite value)|is (?P<value>.*?), which|)"
)


class BrokenRule(NamedTuple):
    """The feature that a rule is about, and its value; empty where the rule is about the whole record."""

    feature: str
    value: str
    is_missing: bool


def parse_rule(rule: str) -> BrokenRule:
    """Reads a rule.

    >>> parse_rule("feature 'age' holds NaN"), parse_rule("label 'late' is 7, which is not in 0..1")
    (BrokenRule(feature='age', value='NaN', is_missing=True), BrokenRule(feature='late', value='7', is_missing=False))
    >>> parse_rule("it has 2 columns, the header has 3")
    BrokenRule(feature='', value='', is_missing=False)
    """
    found = _SENTENCE.match(rule)
    if found is None:
        return BrokenRule("", "", False)
    missing = found["missing"] or found["infinite"]
    return BrokenRule(found["feature"], missing or found["value"] or "", missing is not None)
