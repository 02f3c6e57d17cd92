"""What a worker takes over from a group besides the variables."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.trainer.sessions import small_config
from trainer.group import Group
from trainer.membership import Joined
from trainer.session import build_session

OWN, GROUPS = {"snapshot_steps": 20}, {"snapshot_steps": 100}


class Aborted(Exception):
    """The end of a group."""


class OtherGroup:
    """A group in which this worker has the last rank, and which may break when its sums are prepared."""

    def __init__(self, breaks: bool, *others: dict[str, Any]) -> None:
        self.rank, self.size = len(others), len(others) + 1
        self._breaks, self._others = breaks, others
        self.word: dict[str, Any] = {}

    def all_gather(self, data: bytes) -> list[bytes]:
        self.word = json.loads(data)
        votes = self.word["carried"]["votes"]
        others = [{**word, "carried": {**word["carried"], "votes": votes}} for word in self._others]
        return [*(json.dumps(word).encode() for word in others), data]

    def transfer(self, senders, receivers, arrays) -> None:
        for array in arrays:
            array[...] = 7

    def reduction(self, *told):
        if self._breaks:
            raise Aborted
        return SimpleNamespace()


class Membership:
    broken = Aborted
    prepare = None

    def __init__(self, *groups: OtherGroup) -> None:
        self._groups = iter(groups)

    def join(self) -> Joined:
        group = next(self._groups)
        hosts = tuple(f"host{rank}" for rank in range(group.size))
        return Joined(Group(group.rank, hosts, 1), hosts, group, lambda: None, None)


def word(step: int, carried: dict[str, Any]) -> dict[str, Any]:
    return {"step": step, "parts": None, "carried": carried}


def joined(has_state: bool, *groups: OtherGroup):
    config = small_config(strategy={"name": "elastic"}, train={"virtual_workers": 4})
    session = build_session(config, membership=Membership(*groups))
    session.strategy.train_loop(session.step, session.state)
    session.strategy.warm_up(session.blocks(0, 1).take(1).block)
    if has_state:
        session.strategy.own_state()
    return session.strategy.join(dict(OWN))


def test_a_group_that_breaks_after_the_state_has_come_leaves_all_that_came_with_it():
    whole = OtherGroup(False, {"step": 7, "parts": None, "carried": GROUPS})
    assert joined(False, OtherGroup(True, word(7, GROUPS)), whole).carried == GROUPS
    assert (whole.word["step"], whole.word["carried"]["snapshot_steps"]) == (7, 100), "it is a holder like the others"


@pytest.mark.parametrize("step", [0, 1], ids=["the first is a step behind", "this one alone is"])
def test_all_members_take_over_what_the_first_one_has(step):
    group = OtherGroup(False, word(step, GROUPS), word(1, {"snapshot_steps": 50}))
    assert joined(True, group).carried == GROUPS
