"""What an adapter must offer, and what a loop over several steps returns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from trainer.data.shard import Shard
from trainer.group import Group
from trainer.membership import Joined
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.strategies.arrivals import ArrivalCount


class LoopResult(NamedTuple):
    """Outcome of a call of the inner loop.

    Attributes:
        window: float32 [K], the sums since the last logged step.
        status: int64 [2]: steps done since the start of the run, and 1 if the last computed step was not finite (its
            update is then not applied, and the steps done do not count it).
    """

    window: tf.Tensor
    status: tf.Tensor


Block = Mapping[str, tf.Tensor]
"""The process's slices of several global batches, each feature as [K, b, ...]."""

TrainLoop = tf.types.experimental.PolymorphicFunction
"""A traced function from (block, index of its first batch to take int32, number of steps int32, whether to empty the
window first bool) to a `LoopResult`."""

EvaluationLoop = Callable[[object, tf.Tensor], EvaluationSums]
"""(iterator of batches, number of batches int32) -> sums and collected outputs of all of them."""


class Agreement(Protocol):
    """How the workers of a group come to know the same.

    A clock, a signal or a busy disk is one worker's own, and workers that acted on it alone would wait for each other
    in different places. So each casts votes before a call of the inner loop, they travel with the gradients, and
    after it all workers know them.
    """

    def cast(self, votes: Sequence[bool]) -> None:
        """Hands over this worker's votes for the next call; as many as `NUM_VOTES`."""
        ...

    def counted(self) -> list[bool]:
        """For each vote, whether any worker cast it before the last call."""
        ...

    def from_chief(self, number: int) -> int:
        """The chief's number, on every worker; all of them wait here for each other."""
        ...


NUM_VOTES = 6


class Place(NamedTuple):
    """A worker's place in a group that has just been formed.

    Attributes:
        joined: The group.
        step: Steps that the state of all its members contains; None where none of them has one yet.
        carried: What else belongs to that state, as its owner gave it; empty without one.
    """

    joined: Joined
    step: int | None
    carried: dict[str, Any]

    @property
    def group(self) -> Group:
        """Its members."""
        return self.joined.group


class Regrouping(Protocol):
    """How a process goes on in another group when its own is no more.

    Attributes:
        broken: What a call of the inner loop, or a question to the agreement, raises then. The state is that of a step.
        gathers: Whether a whole state takes all members, each of whom holds only some of it.
        steps_per_round: Between two steps after which the state is that of all workers.
        bytes_per_step: What a part of the batch hands to the group, where that is not the same in each step; else None.
    """

    broken: type[Exception]

    @property
    def gathers(self) -> bool: ...  # noqa: D102

    @property
    def steps_per_round(self) -> int: ...  # noqa: D102

    @property
    def bytes_per_step(self) -> float | None: ...  # noqa: D102

    def gather(self, into: Mapping[str, np.ndarray] | None) -> None:
        """Completes the chief's copy of the state. All members call it after the same step.

        Args:
            into: The chief's, by name; None of all others.
        """
        ...

    def join(self, carried: dict[str, Any]) -> Place:
        """Becomes a member of the next group, with the newest state that any of its members has.

        Args:
            carried: What belongs to this worker's state besides its variables, as plain JSON.
        """
        ...

    def leave(self) -> None:
        """This worker takes no more steps: from now on its group ends at once when another one is formed."""
        ...

    def own_state(self) -> None:
        """From now on the state of this worker counts: it was restored, or is the beginning."""
        ...

    def warm_up(self, block: Block) -> None:
        """Traces and runs everything on a real batch, before the first group; the state stays."""
        ...


class Replication(Protocol):
    """How the states of workers stay equal, where every worker has its own and nothing else compares them."""

    def begin(self, state: TrainState) -> None:
        """Gives every worker the chief's state; called by all, before the first step and after a restore."""
        ...

    def check(self, state: TrainState) -> None:
        """Compares the states; called by all at one step.

        Raises:
            WeightsDiffer: They are not equal.
        """
        ...

    def end(self) -> None:
        """No worker needs the others any more; called by all."""
        ...


class Strategy(Protocol):
    """Spreads a step over devices.

    The step itself never learns which adapter runs it: it is given the position of its slice in the global batch, and
    what lies between gradients and apply is the adapter's.

    Attributes:
        num_replicas: Over how many replicas, of all workers, the global batch is spread.
        shard: What this process reads of each global batch.
        agreement: Of the group's workers; None where there is one process.
        arrivals: Says from any thread what this worker has done while the others wait for it; None where nobody waits.
        regrouping: Of a process that can belong to one group after another; else None.
        replication: Of workers whose states only equal updates keep equal; None where the strategy sees to it.
    """

    num_replicas: int
    shard: Shard
    agreement: Agreement | None
    arrivals: Callable[[], ArrivalCount] | None
    regrouping: Regrouping | None
    replication: Replication | None

    def scope(self) -> contextlib.AbstractContextManager:
        """Within it model, optimizer and state are created."""
        ...

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """The inner loop: one traced function over many steps; it stops early at a step that is not finite."""
        ...

    def evaluation_loop(self, step: EvaluationStep, state: TrainState) -> EvaluationLoop:
        """One traced function over a whole evaluation."""
        ...
