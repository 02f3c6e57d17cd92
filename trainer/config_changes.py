"""What differs between a run's stored config and the one it is to go on with, and which differences matter.

The table is here and nowhere else. A setting that it does not name may change the curve, so a run goes on with it only
when the user says so (`--accept-config-change`).
"""

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ABSENT = object()


@dataclass(frozen=True)
class ConfigChange:
    """One setting that differs.

    Attributes:
        key: the setting, dotted.
        old: its stored value; None where it was not there.
        new: its new value; None where it is gone.
        free: whether the run may go on with it without being asked.
        reason: why, as half a sentence.
    """

    key: str
    old: Any
    new: Any
    free: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {_show(self.old)} -> {_show(self.new)} ({self.reason})"


def _always(config: Mapping[str, Any]) -> bool:
    return True


def _rate_ignores_length(config: Mapping[str, Any]) -> bool:
    schedule = (config.get("optimizer") or {}).get("schedule") or {}
    return schedule.get("name", "constant") in ("constant", "step")


def _has_virtual_workers(config: Mapping[str, Any]) -> bool:
    return bool((config.get("train") or {}).get("virtual_workers"))


# Settings that a run may change freely: pattern, condition on the new config, reason.
_FREE: list[tuple[str, Callable[[Mapping[str, Any]], bool], str]] = [
    ("run.*", _always, "where the run lies does not change it"),
    ("observe.*", _always, "recording does not change training"),
    ("checkpoint.*", _always, "saving does not change training"),
    ("export.*", _always, "it is done after training"),
    ("evaluate.every", _always, "measuring does not change training"),
    ("task.positive", _always, "measuring does not change training"),
    ("task.target_precision", _always, "measuring does not change training"),
    ("train.steps", _rate_ignores_length, "a longer or shorter run has the same curve up to there"),
    ("train.epochs", _rate_ignores_length, "a longer or shorter run has the same curve up to there"),
    ("train.steps_per_loop", _always, "the numbers do not depend on it"),
    ("train.compile_cache", _always, "where programs are kept does not change them"),
    ("train.on_nan", _always, "it matters only when a loss is not finite"),
    ("train.max_rollbacks", _always, "it matters only when a loss is not finite"),
    ("elastic.shard_optimizer", _always, "who holds the optimizer's state does not change training"),
    ("elastic.check_every", _always, "comparing does not change training"),
    ("data.cache", _always, "where samples are kept does not change them"),
    ("data.cache_limit", _always, "where samples are kept does not change them"),
    ("data.service*", _always, "who reads the samples does not change them"),
    ("data.skip_bad_records", _always, "it matters only when a record is bad"),
    ("cluster.standbys", _always, "who stands by does not change training"),
    ("cluster.max_*", _always, "when a run is given up does not change training"),
    ("cluster.*_after", _always, "when a worker is replaced does not change training"),
    ("cluster.straggler_ratio", _always, "when a worker is replaced does not change training"),
    ("cluster.replace_stragglers", _always, "when a worker is replaced does not change training"),
    ("cluster.notice", _always, "when a worker is replaced does not change training"),
    ("cluster.local*", _always, "where workers run does not change training"),
    ("cluster.snapshot_every", _always, "it matters only when a worker dies"),
    ("cluster.expected_mtbf", _always, "how often the state is saved does not change training"),
    ("cluster.workers.*", _always, "a run with {min, max} keeps its curve within float tolerance at any size"),
    ("cluster.*", _has_virtual_workers, "with train.virtual_workers the sums do not depend on it"),
]

# Settings that need the user's word for another reason than the usual one.
_ASKED: list[tuple[str, str]] = [
    ("train.steps", "the learning-rate schedule is spread over the whole run, so its rest changes"),
    ("train.epochs", "the learning-rate schedule is spread over the whole run, so its rest changes"),
    ("train.log_every", "a line of metrics.jsonl averages over these steps"),
    ("warm_start*", "it is read only before the first step, so it has no effect any more"),
    ("cluster.*", "sums are added in another order: equal within float tolerance, not to the bit"),
    ("strategy.*", "sums are added in another order: equal within float tolerance, not to the bit"),
    ("elastic.nccl", "sums may be added in another order: equal within float tolerance, not to the bit"),
    ("model.*", "the stored weights may not fit"),
    ("data.*", "the samples or their order change, and the position in them is kept"),
]


def config_changes(stored: Mapping[str, Any], new: Mapping[str, Any]) -> list[ConfigChange]:
    """The settings that differ, in the order of the stored config.

    Args:
        stored: the run's config as nested mappings, as `model_dump(mode="json")` gives it.
        new: the config to go on with, likewise.

    >>> for change in config_changes({"train": {"steps": 100, "seed": 0}}, {"train": {"steps": 200, "seed": 1}}):
    ...     print(change.free, change)
    True train.steps: 100 -> 200 (a longer or shorter run has the same curve up to there)
    False train.seed: 0 -> 1 (it may change the curve)
    """
    return [
        ConfigChange(key, None if old is _ABSENT else old, None if value is _ABSENT else value, *_judge(key, new))
        for key, old, value in _differences(stored, new, "")
    ]


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f"{key}.{name}" if key else str(name)
            yield from _differences(old.get(name, _ABSENT), new.get(name, _ABSENT), inner)
    elif _plain(old) != _plain(new):
        yield key, old, new


def _plain(value: Any) -> Any:
    """Lists and tuples are the same to YAML."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _judge(key: str, new: Mapping[str, Any]) -> tuple[bool, str]:
    for pattern, condition, reason in _FREE:
        if fnmatch.fnmatchcase(key, pattern) and condition(new):
            return True, reason
    for pattern, reason in _ASKED:
        if fnmatch.fnmatchcase(key, pattern):
            return False, reason
    return False, "it may change the curve"


def _show(value: Any) -> str:
    return "null" if value is None else "true" if value is True else "false" if value is False else str(value)
