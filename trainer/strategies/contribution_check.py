"""Whether the workers of a group compute the same: each computes, once in a while, also what another one does.

A processor that computes wrongly does so in silence, and one wrong gradient is in the weights of all. So at some steps
every part of the batch is computed twice, by its worker and by another one, on another host where there is one; both
send what they got as a hash, before anything is added up. Where two differ, a third computes the part and decides.

Sources: cores that compute wrongly in silence, Hochschild et al., "Cores that don't count" (HotOS 2021), and Dixit et
al., "Silent data corruptions at scale" (2021).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainer.due import Due
from trainer.membership import Collective, Membership
from trainer.strategies.dealing import pair
from trainer.strategies.strategy import Block

Compute = Callable[[Block, int, int], Sequence[np.ndarray]]
"""(block of one step, place of the part in it, part of the global batch) -> the arrays of its contribution."""


@dataclass(frozen=True)
class Verdict:
    """Who computed wrongly.

    Attributes:
        suspects: Ranks, ascending; empty where all is well.
        is_proven: Whether each of them did; otherwise one of them, and nobody can tell which.
        part: The first that was computed wrongly.
    """

    suspects: tuple[int, ...] = ()
    is_proven: bool = False
    part: int = -1

    @property
    def what(self) -> str:
        """Each of them did, for a person."""
        others = "two others" if self.is_proven else "everybody else"
        return f"computed part {self.part} with another result than {others}"


def third(owner: int, checker: int, size: int) -> int | None:
    """Who decides between two members; None where there is nobody else.

    >>> third(0, 1, 3), third(2, 0, 3), third(0, 1, 2)
    (2, 1, None)
    """
    return next((rank for rank in (*range(checker + 1, size), *range(size)) if rank not in (owner, checker)), None)


def judge(part: int, found: Sequence[tuple[int, str]]) -> Verdict:
    """Who is wrong about a part.

    Args:
        part: It.
        found: Rank and hash of each that has computed it; at most three, not all the same.

    >>> judge(4, [(0, "x"), (1, "y"), (2, "x")])
    Verdict(suspects=(1,), is_proven=True, part=4)
    >>> judge(4, [(0, "x"), (1, "y")])
    Verdict(suspects=(0, 1), is_proven=False, part=4)
    """
    digests = [digest for _, digest in found]
    wrong = [rank for rank, digest in found if digests.count(digest) == 1]
    return Verdict(tuple(sorted(wrong)), len(wrong) < len(found), part)


class ContributionCheck:
    """Compares at intervals what the members of a group contribute, before it is added up.

    Args:
        membership: Told of members that compute wrongly.
        due: At which steps it is done.
    """

    def __init__(self, membership: Membership, due: Due) -> None:
        self._membership, self._due = membership, due
        self._collective: Collective | None = None
        self._parts: Sequence[range] = ()
        self._checkers: tuple[int, ...] = ()

    def move_to(self, collective: Collective, hosts: Sequence[str], parts: Sequence[range]) -> None:
        """Goes on in another group, whose hosts and parts are given by rank."""
        self._collective, self._parts = collective, parts
        self._checkers = pair(hosts) if collective.size > 1 else ()

    def is_due(self, step: int) -> bool:
        """Whether the step after so many steps is compared; never by one alone."""
        return bool(self._checkers) and self._due.reached(step + 1)

    def run(
        self, step: int, batch: Mapping[str, np.ndarray], own: Mapping[int, Sequence[np.ndarray]], compute: Compute
    ) -> None:
        """Returns if all members compute the same; otherwise says who does not, and waits for the end of the group.

        Args:
            step: Steps done.
            batch: This member's share of the global batch, each feature as [samples of its parts, ...].
            own: Its contributions, by part.
            compute: Computes a part of another member.

        Raises:
            Membership.broken: The group is no more.
        """
        assert self._collective is not None, "compared within a group"
        verdict = self._compare(self._collective, batch, {part: digest(own[part]) for part in own}, compute)
        if verdict.suspects:
            # An accused who is not the only one must be heard as well: it may be the other that is wrong.
            if not verdict.is_proven or self._collective.rank not in verdict.suspects:
                self._membership.accuse(verdict.suspects, step, verdict.is_proven, verdict.what)
            self._collective.wait_for_end()

    def _compare(
        self, group: Collective, batch: Mapping[str, np.ndarray], own: dict[int, str], compute: Compute
    ) -> Verdict:
        rank, others = group.rank, {}
        for owner, checker in enumerate(self._checkers):
            received = self._hand_over(batch, owner, checker)
            if rank == checker:
                others.update(self._digests(received, owner, self._parts[owner], compute))
        words = [json.loads(word) for word in group.all_gather(json.dumps([own, others]).encode())]
        verdicts = []
        for owner, checker in enumerate(self._checkers):
            for part in self._parts[owner]:
                found = [(owner, words[owner][0][str(part)]), (checker, words[checker][1][str(part)])]
                if found[0][1] != found[1][1]:
                    verdicts.append(self._ask_a_third(group, batch, part, found, compute))
        proven = [verdict for verdict in verdicts if verdict.is_proven]
        suspects = {suspect for verdict in proven or verdicts for suspect in verdict.suspects}
        return Verdict(tuple(sorted(suspects)), bool(proven), (proven or verdicts)[0].part) if suspects else Verdict()

    def _ask_a_third(
        self,
        group: Collective,
        batch: Mapping[str, np.ndarray],
        part: int,
        found: list[tuple[int, str]],
        compute: Compute,
    ) -> Verdict:
        """All members come here, because all know of the difference."""
        owner, checker = found[0][0], found[1][0]
        judging = third(owner, checker, group.size)
        if judging is None:
            return judge(part, found)
        received = self._hand_over(batch, owner, judging)
        answer = ""
        if group.rank == judging:
            answer = self._digests(received, owner, range(part, part + 1), compute)[part]
        answers = group.all_gather(answer.encode())
        return judge(part, [*found, (judging, answers[judging].decode())])

    def _hand_over(self, batch: Mapping[str, np.ndarray], owner: int, receiver: int) -> dict[str, np.ndarray]:
        """The owner's share of the batch, on the receiver; all others only pass by."""
        assert self._collective is not None
        rank, names = self._collective.rank, sorted(batch)
        share: dict[str, np.ndarray] = {}
        if rank == owner:
            share = {name: np.ascontiguousarray(batch[name]) for name in names}
        elif rank == receiver:
            for name in names:
                rows = len(batch[name]) // len(self._parts[rank]) * len(self._parts[owner])
                share[name] = np.empty((rows, *batch[name].shape[1:]), batch[name].dtype)
        self._collective.transfer([owner], [receiver], list(share.values()))
        return share

    def _digests(self, batch: Mapping[str, np.ndarray], owner: int, parts: range, compute: Compute) -> dict[int, str]:
        block = {name: tf.constant(values[None]) for name, values in batch.items()}
        begin = self._parts[owner].start
        return {part: digest(compute(block, part - begin, part)) for part in parts}


def digest(arrays: Sequence[np.ndarray]) -> str:
    """A hash of the bytes of contiguous arrays."""
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(array.view(np.uint8).data)
    return found.hexdigest()
