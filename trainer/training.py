"""Trains a config in its run folder: build, restore, loop, save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from trainer.checkpoint.host_buffer import ArraySpec
from trainer.config.training import TrainingConfig
from trainer.config.warm_start import WarmStartConfig
from trainer.data.mixture import MixtureSource
from trainer.data.mixture_order import MixtureOrder
from trainer.data.service import BlockService
from trainer.group import Group
from trainer.intervals.interruptions import Exposure
from trainer.loop import Loop
from trainer.observe.profile_order import ProfileOrder
from trainer.recorder import Recorder
from trainer.run_folder import RunFolder
from trainer.saving import Saver
from trainer.session import Session, build_session
from trainer.snapshot.file import Snapshot
from trainer.snapshot.taker import SnapshotPlan
from trainer.stop_request import StopRequest
from trainer.strategies.arrivals import ArrivalCount
from trainer.strategies.strategy import Place, Regrouping
from trainer.warm_start import plan_warm_start, read_weights


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        stopped: Why the run ended early, with its state saved, such as "SIGTERM"; None at the end of the config.
        step: Steps done.
        metrics: Of the newest evaluation, by name; empty without one.
        wall_time_s: Seconds of all processes that worked on the run.
        session: Still holds the trained model.
    """

    stopped: str | None
    step: int
    metrics: dict[str, float]
    wall_time_s: float
    session: Session


def run_training(
    config: TrainingConfig,
    folder: RunFolder,
    stop: StopRequest,
    group: Group | None = None,
    *,
    restore: Snapshot | None = None,
    snapshots: SnapshotPlan | None = None,
    on_progress: Callable[[int, str], None] | None = None,
    on_snapshot: Callable[[int], None] | None = None,
    on_arrivals: Callable[[Callable[[], ArrivalCount]], None] | None = None,
    on_checkpoint: Callable[[int], None] | None = None,
    session: Session | None = None,
    exposure: Exposure | None = None,
    profile_order: ProfileOrder | None = None,
    service: BlockService | None = None,
) -> Outcome:
    """Trains from a snapshot, the newest good checkpoint of the folder, or the start, to the end of the config.

    The caller holds the run's lock and has written its config. In a group every worker calls this with the same
    config and folder; the chief writes the records. When one dies the others may wait for it for ever: the caller
    ends them.

    Args:
        config: What to train.
        folder: Of the run; exists.
        stop: Asks for an early end, with the state saved; a group stops at one step when any of its workers is asked.
        group: The workers; None for a process alone.
        restore: What to go on from, the same step for every worker of a group; None is the newest checkpoint.
        snapshots: Where and how often to take snapshots, equally often on every worker; None for none.
        on_progress: Called with the steps done and the phase that begins: "build", "restore", "compile", "step",
            "evaluate" or "checkpoint".
        on_snapshot: Called, on another thread, with the step of each snapshot that a kill cannot take back.
        on_arrivals: Called once, in a group, with what says from any thread how far this worker is with its own part.
        on_checkpoint: Called, on another thread, with the step of each checkpoint that is durable; by the chief alone.
        session: Built before, of a worker that becomes a member of its first group now; group and restore then come
            from its membership.
        exposure: What can fail, for the intervals that the config leaves open; None for one host of the usual kind.
        profile_order: Somebody's wish to see the next steps of this worker.
        service: Other processes that read the batches; None: this one does.

    Raises:
        DataError: The data is missing or damaged.
        NonFiniteLoss: The loss became NaN or infinite.
        WarmStartError: The weights to begin with cannot be loaded.
        ValueError: Model, task, data, checkpoint and group do not fit together.
    """
    regrouping = session.strategy.regrouping if session else None
    place = regrouping.join({}) if regrouping else None
    if place is not None:
        group = place.group
        snapshots = replace(snapshots, path=place.joined.snapshots) if snapshots else None
    recorder = Recorder(folder, config.observe, group, profile_order)
    try:
        with recorder.trace.span("startup"):
            restored = 0 if restore is None else restore.step
            if session is None:
                session = build_session(config, group, lambda: on_progress(restored, "build") if on_progress else None)
            session.service = service
            if service is not None:
                service.warn = recorder.warn
            if on_arrivals and session.strategy.arrivals:
                on_arrivals(session.strategy.arrivals)
            recorder.strategy(session.choice.facts, session.choice.why if session.choice.is_automatic else None)
            saver = Saver(session, folder, recorder, group, snapshots, on_snapshot, on_checkpoint, exposure)
            if on_progress:
                on_progress(restored, "restore")
            if regrouping is None or place is None:
                restored_step = saver.restore(restore)
            else:
                restored_step = _restore_as_member(place, saver, recorder, regrouping)
            if restored_step is None and config.warm_start is not None:
                _start_warm(session, config.warm_start, recorder)
            if regrouping is not None:
                regrouping.own_state()
            _say_what_is_frozen(session, recorder)
            recorder.begin(session.total_steps, restored_step)
            loop = Loop(session, recorder, saver, stop, recorder.is_chief, on_progress)
            if restore is not None and regrouping is None:
                loop.make_up()
        begin = "started" if restored_step is None else "resumed"
        recorder.event(begin, step=session.state.step, total_steps=session.total_steps)
        try:
            loop.run()
        finally:
            saver.close()
        session.state.copy_home()
        step = session.state.step
        stopped = None if step >= session.total_steps else stop.reason or "another worker"
        _say_what_was_drawn(session, saver.position.data_step(step), recorder)
        recorder.event("stopped" if stopped else "finished", step=step, reason=stopped, **saver.metrics)
        return Outcome(stopped, step, saver.metrics, saver.wall_time_s, session)
    except BaseException as error:
        recorder.event("failed", reason=str(error) or type(error).__name__, kind=type(error).__name__)
        raise
    finally:
        recorder.close()


def _say_what_was_drawn(session: Session, data_steps: int, recorder: Recorder) -> None:
    """How far a training has come in each source of a mixture."""
    if isinstance(session.source, MixtureSource) and isinstance(session.order, MixtureOrder):
        recorder.say(session.source.progress(session.order.drawn(data_steps)))


def _restore_as_member(place: Place, saver: Saver, recorder: Recorder, regrouping: Regrouping) -> int | None:
    """Comes to the state from which a group goes on: its members', else what its assignment says.

    Returns:
        Its step; None where the training begins.
    """
    while True:
        try:
            if place.step is not None:
                saver.take_over(place.carried)
                return place.step
            return saver.restore(place.joined.restore())
        except regrouping.broken:
            place = regrouping.join(saver.carried())
            saver.move_to(place)
            recorder.move_to(place.group)


def _say_what_is_frozen(session: Session, recorder: Recorder) -> None:
    thawing = session.step.gradients.thawing
    for stage in thawing.stages if thawing else ():
        recorder.say(f"{len(stage.layers)} layers are frozen until step {stage.thaw}")


def _start_warm(session: Session, config: WarmStartConfig, recorder: Recorder) -> None:
    """Loads what fits of another model's weights, and says what does not."""
    specs = {name: ArraySpec(*spec) for name, spec in session.state.shapes().items()}
    wanted = {
        name.removeprefix("model/"): spec
        for name, spec in specs.items()
        # A layer's random seed is no knowledge, and the step does not draw from it.
        if name.startswith("model/") and not name.endswith("seed_generator_state")
    }
    plan = plan_warm_start(read_weights(config.path), wanted, config.include, config.exclude)
    session.state.start_from(plan.loaded)
    recorder.event(
        "warm_started",
        path=str(config.path),
        loaded=plan.sources,
        skipped={variable.path: variable.reason for variable in plan.skipped},
        unused=plan.unused,
    )
    recorder.say(f"warm start from {config.path}: {len(plan.loaded)} of {len(wanted)} variables loaded")
    for variable in plan.skipped:
        recorder.warn(f"  not loaded: {variable.path} ({variable.reason})")
