"""Data parallelism whose group can be formed anew without ending a process.

Each worker computes the gradients of its parts of the batch in one traced function and applies the sum of all parts in
another. Between the two the sum goes through a group that knows arrays and not TensorFlow: when a member dies, the
others keep their processes, their functions, their state and the gradients that they have, and take the same step again
with whoever takes the dead one's place.

The batch is cut into a fixed number of parts ("virtual workers"), whose gradients are added in one fixed order. So the
curve is the same to the bit for every number of workers.

Sources: virtual nodes as in VirtualFlow (Or et al., MLSys 2022); deterministic elasticity as in EasyScale (Li et al.,
SC 2023).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from trainer.config.elastic import ElasticConfig
from trainer.data.shard import Shard
from trainer.due import Due
from trainer.membership import Collective, Joined, Membership, Reduction
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep
from trainer.strategies.arrivals import ArrivalCount
from trainer.strategies.compression import Compression
from trainer.strategies.contribution_check import ContributionCheck
from trainer.strategies.dealing import deal_parts
from trainer.strategies.device_sums import DeviceSums
from trainer.strategies.elastic_loop import ElasticLoop, OwnTime
from trainer.strategies.one_device import OneDevice
from trainer.strategies.optimizer_shards import OptimizerShards
from trainer.strategies.outer_loop import OuterLoop
from trainer.strategies.overlap import Overlap, can_overlap
from trainer.strategies.sharded_loop import ShardedLoop
from trainer.strategies.strategy import (
    NUM_VOTES,
    Agreement,
    Block,
    EvaluationLoop,
    Place,
    Regrouping,
    Replication,
    TrainLoop,
)


class Elastic:
    """One device in each of several workers that come and go.

    Args:
        membership: Forms the groups.
        num_parts: Parts of the global batch (`train.virtual_workers`); at least the number of workers.
    """

    def __init__(self, membership: Membership, num_parts: int) -> None:
        self.num_replicas = num_parts
        self.shard = Shard(0, num_parts, num_parts)
        self.broken: type[Exception] = membership.broken
        self._membership = membership
        self._own_time = OwnTime()
        self.arrivals: Callable[[], ArrivalCount] | None = self._own_time.count
        self._votes = GroupAgreement(membership.broken)
        self.agreement: Agreement | None = self._votes
        self.regrouping: Regrouping | None = self
        self.replication: Replication | None = None
        self._parts: range | None = None
        self._prepared: Prepared | None = None
        self._room: dict[str, np.ndarray] | None = None  # for the state that a newcomer gets
        self._has_state = False
        self._state: TrainState | None = None
        self._loop: ElasticLoop | None = None
        self._check: ContributionCheck | None = None
        self._shards: OptimizerShards | None = None
        self._options = ElasticConfig()
        self._compression: Compression | None = None
        self._overlap: Overlap | None = None
        self._device_sums: DeviceSums | None = None

    def set_options(self, options: ElasticConfig, steps_per_epoch: int) -> None:
        """Takes the `elastic` section over, before there is a loop."""
        if options.check_every is not None:
            self._check = ContributionCheck(self._membership, Due(options.check_every, steps_per_epoch))
        if options.compression != "none":
            self._compression = Compression(options)
        self._device_sums = DeviceSums.of(options)
        self._options = options

    @property
    def gathers(self) -> bool:
        """Whether a whole state takes all members."""
        return self._options.shard_optimizer

    @property
    def steps_per_round(self) -> int:
        """Between two steps after which the state is that of all workers."""
        return self._options.outer_every or 1

    @property
    def bytes_per_step(self) -> float | None:
        """What a part hands to the group, per step, where that is not the same in each step."""
        return self._loop.bytes_per_step if isinstance(self._loop, OuterLoop) else None

    def gather(self, into: Mapping[str, np.ndarray] | None) -> None:
        """Completes the chief's copy of the state. All members call it after the same step.

        Args:
            into: The chief's, by name; None of all others.
        """
        if self._shards is not None:
            self._shards.gather(into)

    def scope(self) -> contextlib.AbstractContextManager:
        """Nothing to place: TensorFlow's default device is the one."""
        return contextlib.nullcontext()

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """A loop in Python over two traced functions; it raises `broken` when the group is no more."""
        if self._loop is None:
            self._state = state
            arguments = (step, state, self._votes, self._own_time, self.num_replicas, self._check)
            if can_overlap(self._options, step, self.num_replicas):
                self._overlap = Overlap(self._options)
            if self._options.outer_every is not None:
                self._loop = OuterLoop(self._options, *arguments)
            elif self._options.shard_optimizer:
                self._shards = OptimizerShards(state)
                self._loop = ShardedLoop(self._shards, *arguments, None, self._overlap, self._device_sums)
            else:
                self._loop = ElasticLoop(*arguments, self._compression, self._overlap, self._device_sums)
                if self._overlap is None and self._device_sums is None:
                    self._membership.prepare = self._prepare
        return self._loop  # type: ignore[return-value]

    def evaluation_loop(self, step: EvaluationStep, state: TrainState) -> EvaluationLoop:
        """All batches on one worker: nobody waits for another in between, and no sum has another order."""
        return OneDevice().evaluation_loop(step, state)

    def warm_up(self, block: Block) -> None:
        """Traces and runs everything once on a real batch of all parts; the state stays."""
        assert self._loop is not None, "there is a loop"
        self._loop.warm_up(block)

    def own_state(self) -> None:
        """From now on the state of this worker counts: it was restored, or is the beginning."""
        self._has_state = True
        if self._shards is not None:
            self._shards.release()

    def leave(self) -> None:
        """This worker takes no more steps: a group that is being formed ends its own at once."""
        self._membership.leave()

    def _prepare(self, joined: Joined, goes_on: bool) -> bool:
        """Deals the parts of a group that has just been formed, and has its sums prepared; see `Membership`."""
        assert self._loop is not None, "the loop is traced before a worker is ready"
        parts = None if self._parts is None else [self._parts.start, self._parts.stop]
        own = json.dumps({"parts": parts, "goes_on": goes_on})
        words = [json.loads(word) for word in joined.collective.all_gather(own.encode())]
        before = [word["goes_on"] for word in words if word["parts"] is not None]
        if not before or not all(before):
            return False
        held = [None if word["parts"] is None else range(*word["parts"]) for word in words]
        dealt = deal_parts(self.num_replicas, joined.hosts, held)
        self._prepared = Prepared(joined.collective, dealt, self._loop.reductions(joined.collective, dealt))
        self._votes.moves = goes_on
        if not self._has_state:
            # Written to now: the others would wait longer for the pages of fresh memory than for what comes into them.
            self._room = self._empty_state()
            for array in self._room.values():
                array.fill(0)
        return True

    def _empty_state(self) -> dict[str, np.ndarray]:
        assert self._state is not None
        return {name: np.empty(shape, dtype) for name, (shape, dtype) in self._state.shapes().items()}

    def join(self, carried: dict[str, Any]) -> Place:
        """Becomes a member of the next group, with the newest state that any of its members has.

        Args:
            carried: What belongs to this worker's state besides its variables, as plain JSON. It becomes what belongs
                to the state that the worker takes over.
        """
        while True:
            try:
                return self._join(carried)
            except self.broken:
                continue  # a member died before all had the state: there is another group

    def _join(self, carried: dict[str, Any]) -> Place:
        assert self._loop is not None and self._state is not None, "the loop is traced before a worker is ready"
        joined = self._membership.join()
        collective, rank = joined.collective, joined.group.rank
        own = {
            "step": self._state.step if self._has_state else -1,
            "parts": None if self._parts is None else [self._parts.start, self._parts.stop],
            "carried": {**carried, "votes": self._votes.last_counted},
            **(self._loop.word() if isinstance(self._loop, ShardedLoop) else {}),
            **({} if self._device_sums is None else {"device": self._device_sums.offer(collective)}),
        }
        words = [json.loads(word) for word in collective.all_gather(json.dumps(own).encode())]
        held = [None if word["parts"] is None else range(*word["parts"]) for word in words]
        prepared = self._prepared if self._prepared and self._prepared.collective is collective else None
        self._prepared = None
        parts = prepared.parts if prepared else deal_parts(self.num_replicas, joined.hosts, held)
        if isinstance(self._loop, ShardedLoop):
            self._loop.settle(words, rank)
        if self._shards is not None:
            self._shards.deal(collective, joined.hosts)
        newest = max(word["step"] for word in words)
        place = Place(joined, None if newest < 0 else newest, {})
        if newest >= 0:
            ahead = [each for each, word in enumerate(words) if word["step"] == newest]
            behind = [each for each, word in enumerate(words) if word["step"] != newest]
            if self._shards is not None:
                self._has_state = rank in ahead
                self._shards.spread(words, newest)
                self._has_state = True
            elif behind:
                self._bring_up_to_date(collective, ahead, behind)
            # From one member to all, so that calls end at the same steps everywhere: the first one, which was the chief
            # before if that is still there. It alone has measured, and may be a step behind.
            first = next(word for word in words if word["step"] >= 0)
            self._votes.last_counted = words[ahead[0]]["carried"]["votes"]
            place = Place(joined, newest, {name: value for name, value in first["carried"].items() if name != "votes"})
            # This worker's from now on, also if the group breaks before it is whole.
            carried.clear()
            carried.update(place.carried)
        self._parts = parts[rank]
        self.shard = Shard(self._parts.start, self._parts.stop, self.num_replicas)
        self._votes.settle(collective)
        if self._overlap is not None:
            self._overlap.move_to(joined.hosts)
        if self._device_sums is not None:
            self._device_sums.connect(collective, [word.get("device") for word in words])
        self._loop.move_to(collective, parts, prepared.reductions if prepared else None)
        if self._check is not None:
            self._check.move_to(collective, joined.hosts, parts)
        return place

    def _bring_up_to_date(self, collective: Collective, ahead: Sequence[int], behind: Sequence[int]) -> None:
        assert self._state is not None
        names = sorted(self._state.variables)
        if collective.rank in behind:
            arrays, self._room = self._room or self._empty_state(), None
            collective.transfer(ahead, behind, [arrays[name] for name in names])
            self._state.restore(arrays)
            self._has_state = True
        else:
            values = self._state.tensors()
            collective.transfer(ahead, behind, [np.asarray(values[name]) for name in names])


class Prepared(NamedTuple):
    """What the steps of a group need, made before its members leave their last one.

    Attributes:
        collective: Of the group.
        parts: That each member computes, by rank.
        reductions: The sums, by type.
    """

    collective: Collective
    parts: tuple[range, ...]
    reductions: dict[tf.DType, Reduction]


class GroupAgreement:
    """`Agreement` of the members: votes are added up with the gradients, with one more to leave the group.

    Args:
        broken: Raised where all leave their group after the same step.

    Attributes:
        own: This worker's votes for the next call.
        last_counted: For each vote, whether any member cast it in the last step.
        moves: Whether the next group is ready. All of its members know when one of them does.
        collective: Of the present group.
    """

    def __init__(self, broken: type[Exception]) -> None:
        self._broken = broken
        self.own = [False] * (NUM_VOTES + 1)
        self.last_counted = [False] * (NUM_VOTES + 1)
        self.moves = False
        self.collective: Collective | None = None

    def cast(self, votes: Sequence[bool]) -> None:
        """Hands over this worker's votes for the next call."""
        self.own = [*votes, self.moves]

    def counted(self) -> list[bool]:
        """For each vote, whether any worker cast it before the last call."""
        return self.last_counted[:NUM_VOTES]

    def heed(self) -> None:
        """Raises `broken` if all members have heard in their last call that they go on in another group."""
        if self.last_counted[NUM_VOTES]:
            raise self._broken("the members go on in a larger group")

    def settle(self, collective: Collective) -> None:
        """This worker is in another group, which nobody has a reason to leave."""
        self.collective, self.moves, self.last_counted[NUM_VOTES] = collective, False, False

    def from_chief(self, number: int) -> int:
        """The chief's number, on every worker; all of them wait here for each other."""
        assert self.collective is not None, "asked within a group"
        return int(self.collective.all_gather(str(number).encode())[0])
