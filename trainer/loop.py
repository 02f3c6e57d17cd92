"""The outer loop: plain Python from boundary to boundary; between two of them one traced function takes many steps."""

from __future__ import annotations

import time
from collections.abc import Callable

import tensorflow as tf

from trainer.best_metric import check_best_metric
from trainer.data.block_reader import BlockReader, Steps
from trainer.decisions import Decisions
from trainer.due import Due
from trainer.non_finite import explain
from trainer.recorder import Recorder
from trainer.saving import Saver
from trainer.session import Session
from trainer.skipped import SkippedWatch
from trainer.step.window import mean_loss
from trainer.stop_request import StopRequest
from trainer.strategies.strategy import Agreement, LoopResult, TrainLoop
from trainer.window_clock import WindowClock


class Loop:
    """Trains a session from its current step to its end.

    At a boundary things happen in one order: log, evaluate, save. So a checkpoint of step s implies that every record
    up to s is written, and a resumed run drops the records after s and writes them again, the same.

    Args:
        session: Restored or fresh.
        recorder: Told of everything.
        saver: Saves the state.
        stop: Read at every boundary.
        is_chief: Whether this worker of a group decides by its clock; a process alone does.
        on_progress: Called with the steps done and the phase that begins: "compile", "step", "evaluate" or
            "checkpoint". It is called before every call of the inner loop, so it must cost next to nothing.
    """

    def __init__(
        self,
        session: Session,
        recorder: Recorder,
        saver: Saver,
        stop: StopRequest,
        is_chief: bool = True,
        on_progress: Callable[[int, str], None] | None = None,
    ) -> None:
        self._session, self._recorder, self._saver = session, recorder, saver
        self._skipped = SkippedWatch(session.sources, recorder)
        self._progress = on_progress or (lambda step, phase: None)
        self._regrouping = session.strategy.regrouping
        self._broken = self._regrouping.broken if self._regrouping else ()
        self._replication = session.strategy.replication
        config, epoch = session.config, session.order.steps_per_epoch
        self._train = config.train
        self._evaluation_due = Due(config.evaluate.every, epoch)
        self._histograms_due = Due(config.observe.histograms_every, epoch)
        self._decisions = Decisions(session.strategy.agreement, is_chief, stop, self._evaluation_due, saver)
        self._loop: TrainLoop = session.strategy.train_loop(session.step, session.state)
        self._reader: BlockReader | None = None
        self._round = self._regrouping.steps_per_round if self._regrouping else 1
        self._boundary = 0  # the newest step after which what was due was done
        self._taken = 0  # steps that the last call of the inner loop was to take
        # The first call traces the loop and compiles it, where that has not been done before.
        self._compiled, self._has_called = session.is_warm, False
        self._clock = WindowClock(session.examples(session.state.step))

    def run(self) -> None:
        """Takes steps until the end or until a stop is requested, whichever is first.

        Raises:
            NonFiniteLoss: A loss is not finite and may not, or no longer, be rolled back.
            DataError: A record cannot be read.
            ValueError: The first evaluation lacks the metric that finds the best checkpoint.
        """
        session = self._session
        first_step = step = session.state.step
        self._skipped.look()
        if self._replication is not None:
            self._replication.begin(session.state)
        self._saver.rollback.begin()
        self._decisions.hear()  # what a group counted that this worker has just joined
        self._open_blocks(step)
        try:
            while step < session.total_steps and not self._decisions.stops:
                try:
                    step = self._advance(step)
                except self._broken:
                    step = self._regroup(step)
        finally:
            if self._reader is not None:
                self._reader.close()
            self._skipped.conclude()
        while not self._leave(step, step > first_step):
            pass

    def make_up(self) -> None:
        """Logs the step that the training goes on from, if its chief died between that step and its record: another
        worker's memory may have the state before the chief has written the line."""
        step = self._session.state.step
        if step and step % self._train.log_every == 0 and self._recorder.lacks(step):
            window = self._session.state.variables["window"].read_value()
            self._log(step, LoopResult(window, tf.constant(0)))

    def _advance(self, step: int) -> int:
        """One call of the inner loop, and what is due after it; returns the steps done."""
        self._saver.call_begins()
        before, has_called = step, self._has_called
        result = self._take(step, self._steps_to_boundary(step))
        step, not_finite = result.status.numpy().tolist()
        if has_called and not not_finite:
            self._saver.call_ended(step - before)
        self._decisions.after_call()
        if not_finite:
            step = self._roll_back(step)
            self._open_blocks(step)
        elif step % self._round == 0:
            self._at_boundary(step, result)
        return step

    def _catch_up(self, step: int) -> None:
        """What was due within the round that ends now is done at its end: a rule of the step alone, so that a round
        that is given up leaves nothing behind."""
        for due in (self._evaluation_due, self._histograms_due, self._saver.due):
            if due.next_step(step - self._round) < step:
                due.put_off()

    def _leave(self, step: int, has_trained: bool) -> bool:
        """Saves the last state; whether all members of the group may end."""
        agreement = self._session.strategy.agreement
        if self._regrouping is not None:
            self._regrouping.leave()  # no step is to come after which all could go on in another group
        try:
            if agreement is not None and self._saver.gathers:
                has_trained = bool(agreement.from_chief(int(has_trained)))  # it saves, and takes all others for it
            if has_trained:
                self._progress(step, "checkpoint")
                self._check_replicas()
                if step < self._session.total_steps:
                    self._saver.hand_over(step)
                self._saver.save(step, wait=True)
            if agreement is not None:
                self._dismiss(agreement, step)
            if self._replication is not None:
                self._replication.end()
        except self._broken:
            self._join_group(step)
            return False
        return True

    def _dismiss(self, agreement: Agreement, step: int) -> None:
        """Nobody leaves before the checkpoint is durable: an end beside it would look like a failure."""
        try:
            agreement.from_chief(step)
        except tf.errors.UnavailableError:
            # A peer that has heard it may end before what it sent is fetched. The chief, which has saved, is through.
            if not self._decisions.is_chief:
                raise

    def _regroup(self, step: int) -> int:
        """Goes on in another group, with the newest state that any of its members has; returns the steps done."""
        shard = self._session.strategy.shard
        self._join_group(step)
        now = self._session.state.step
        if self._reader is not None and self._session.strategy.shard == shard and step <= now <= step + self._taken:
            self._reader.give_back(step + self._taken - now)
        else:
            self._open_blocks(now)
        return now

    def _join_group(self, step: int) -> None:
        assert self._regrouping is not None, "only a group that can be formed anew breaks"
        self._progress(step, "restore")
        with self._recorder.trace.span("regroup", step):
            place = self._regrouping.join(self._saver.carried())
            self._saver.move_to(place)
            became_chief = place.group.is_chief and not self._decisions.is_chief
            self._decisions.is_chief = place.group.is_chief
            self._decisions.hear()
            self._recorder.move_to(place.group)
        now = self._session.state.step
        if became_chief:
            # The last chief may have died before it had done what was due here.
            self._recorder.begin(self._session.total_steps, now - 1 if now else None)
        if became_chief and now:
            self._saver.metrics = self._recorder.last_evaluation()
        # Nor has a chief done it whose call was broken off in its last step, which others have completed.
        if self._decisions.is_chief and now and (became_chief or now > max(step, self._boundary)):
            window = self._session.state.variables["window"].read_value()
            self._at_boundary(now, LoopResult(window, tf.constant(0)), saves=not self._saver.gathers)

    def _at_boundary(self, step: int, result: LoopResult, saves: bool = True) -> None:
        self._boundary = step
        if self._round > 1:
            self._catch_up(step)
        last_step = self._session.total_steps
        if step % self._train.log_every == 0 or step == last_step:
            self._log(step, result)
        if self._decisions.evaluates(step) or step == last_step:
            self._evaluate(step)
        self._skipped.look()
        if self._histograms_due.reached(step):
            self._record_histograms(step)
        self._saver.rollback.at(step)
        if not saves:
            if self._saver.due.falls_on(step):
                self._saver.due.put_off()  # all members would have to be here
        elif step < last_step and self._decisions.saves(step):
            self._check_replicas()
            self._saver.save(step)
        every = self._saver.snapshot_interval.steps
        if every is not None and step % every < self._round and step < last_step:
            with self._recorder.trace.span("snapshot_stall", step):
                self._saver.take_snapshot(step)

    def _check_replicas(self) -> None:
        """A state that is saved is that of all workers."""
        if self._replication is not None:
            self._replication.check(self._session.state)

    def _open_blocks(self, step: int) -> None:
        if self._reader is not None:
            self._reader.abandon()  # a recovery must not wait for blocks that nobody wants any more
        remaining = self._session.total_steps - step
        self._reader = self._session.blocks(self._saver.position.data_step(step), remaining)

    def _steps_to_boundary(self, step: int) -> int:
        """A rule of the step alone: members of a group that joined it at different steps end their calls at the same
        ones, where they hear each other's votes."""
        regular = (self._train.steps_per_loop, self._train.log_every)
        boundaries = [
            *((step // every + 1) * every for every in regular),
            self._session.total_steps,
            self._evaluation_due.next_step(step),
            self._histograms_due.next_step(step),
            self._saver.due.next_step(step),
            self._saver.rollback.next_step(step),
        ]
        if self._round > 1:
            boundaries.append((step // self._round + 1) * self._round)
        elif (every := self._saver.snapshot_interval.steps) is not None:
            boundaries.append((step // every + 1) * every)
        return int(min(boundaries)) - step

    def _take(self, step: int, most_steps: int) -> LoopResult:
        """Up to `most_steps` steps. The window is emptied at the first step after a logged one: a rule of the step
        alone, so that it is the same after a resume."""
        reader = self._reader
        assert reader is not None, "opened before the first step"
        with self._recorder.trace.span("data", step):
            taken = self._read(reader, most_steps)
        self._taken = taken.num_steps
        self._clock.waited_s, reader.waited_s = self._clock.waited_s + reader.waited_s, 0.0
        self._recorder.profile.before(step, taken.num_steps)
        arguments = (
            taken.block,
            tf.constant(taken.first),
            tf.constant(taken.num_steps),
            tf.constant(step % self._train.log_every == 0),
        )
        phase = "step" if self._compiled else "compile"
        self._progress(step, phase)
        self._decisions.before_call()
        with self._recorder.trace.span(phase, step):
            result = self._loop(*arguments)
        if not self._has_called:
            self._compiled = self._has_called = True
            self._recorder.graph(lambda: self._loop.get_concrete_function(*arguments))
        self._recorder.profile.after(step + taken.num_steps)
        return result

    def _read(self, blocks: BlockReader, most_steps: int) -> Steps:
        try:
            return blocks.take(most_steps)
        except tf.errors.OpError:
            if self._session.source.failure is not None:
                raise self._session.source.failure from None
            raise

    def _log(self, step: int, result: LoopResult) -> None:
        session = self._session
        window = result.window.numpy()
        layout = session.step.window
        packed = window[: layout.metrics.size]
        metrics = session.task.metrics(layout.metrics.unpack(packed))
        figures = {"loss": mean_loss(packed), **metrics, **layout.figures(window)}
        if self._regrouping is not None and self._regrouping.bytes_per_step is not None:
            figures["bytes_per_step"] = self._regrouping.bytes_per_step
        examples = session.examples(step)
        examples_per_s, data_wait = self._clock.close_window(examples)
        self._recorder.logged(step, figures, examples, examples_per_s, data_wait)

    def _evaluate(self, step: int) -> None:
        if self._session.evaluator is None:
            return
        if self._regrouping is not None and not self._decisions.is_chief:
            self._evaluation_due.done()
            return
        self._progress(step, "evaluate")
        began = time.monotonic()
        with self._recorder.trace.span("evaluate", step):
            metrics = self._session.evaluator.measure()
        check_best_metric(self._session.config.checkpoint.best_metric, metrics)
        self._saver.metrics = metrics
        duration_s = time.monotonic() - began
        self._recorder.evaluated(step, self._session.evaluator.split, metrics, duration_s)
        self._evaluation_due.done()
        self._clock.pause(duration_s)

    def _record_histograms(self, step: int) -> None:
        variables = self._session.state.variables
        self._recorder.histograms(step, {n: v.numpy() for n, v in variables.items() if n.startswith("model/")})
        self._histograms_due.done()

    def _roll_back(self, bad_step: int) -> int:
        """Goes back to the last kept state and leaves out the batches since; returns that state's step.

        Raises:
            NonFiniteLoss: The config stops at a loss that is not finite, or rolled back often enough.
        """
        session, saver = self._session, self._saver
        cause = explain(session, bad_step, saver.position.data_step(bad_step))
        if self._train.on_nan == "stop" or len(saver.position.skipped) >= self._train.max_rollbacks:
            raise cause
        step = saver.rollback.return_to()
        self._clock = WindowClock(session.examples(step))
        window = saver.position.skip(step, bad_step)
        self._recorder.begin(session.total_steps, step or None)
        self._recorder.event(
            "rolled_back", step=step, from_step=bad_step, first=window.first, last=window.last, reason=str(cause)
        )
        self._recorder.warn(
            f"step {bad_step + 1}: {'; '.join(cause.causes)}; back to step {step}, leaving out the batches of data "
            f"steps {window.first} to {window.last}"
        )
        return step
