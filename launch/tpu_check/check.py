"""Tries a config on a slice that is not there."""

import contextlib
import time
from typing import TYPE_CHECKING

from launch.config import RunConfig
from launch.exit_code import is_ours
from launch.quiet_start import import_tensorflow
from launch.tpu_check.batch_search import Largest, Trial, largest_batch
from launch.tpu_check.chips import Chip, chip_of
from launch.tpu_check.compiler import Compiled, OutOfTime, Slice, TpuCompiler, check_installed
from launch.tpu_check.refusals import Refusal, refusal_of
from launch.tpu_check.roofline import roofline
from launch.tpu_check.verdict import TpuVerdict, collected, hbm_of

if TYPE_CHECKING:
    from trainer.strategies.tpu_lowering import TpuLowering

LIMIT_S = 900.0
"""How long all compilations together may take, unless somebody says otherwise."""


_SLOW_S = 20.0
"""A program that takes longer to compile is tried in other sizes at the compiler's quick level."""

_SHARE = 1 / 3
"""Of the limit, after which a program is compiled at the quick level instead."""


def check_for_tpu(
    config: RunConfig, topology: str, limit_s: float = LIMIT_S, search: bool = True, quick: bool = False
) -> TpuVerdict:
    """Compiles the training step of a config for a slice.

    Args:
        config: any strategy; what is compiled is the step of strategy.name=tpu.
        topology: such as "v5e:2x2".
        limit_s: seconds for the compiler.
        search: whether to look for the largest batch that fits.
        quick: whether to compile at the lowest level of optimization, which overstates temporaries.

    Raises:
        RequestError: the extra tpu-check is not installed, or the compiler does not know the slice.
        OutOfTime: the compiler was not ready in time.
        DataError: the data is missing or damaged.
    """
    chip = chip_of(topology)
    check_installed()
    import_tensorflow()
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # devices were started before: then the programs are made on one of them
        tf.config.set_visible_devices([], "GPU")
    with TpuCompiler(topology, limit_s) as compiler:
        return _Check(config, topology, compiler, compiler.slice(), search, quick).run(chip)


class _Check:
    """One config on one slice."""

    def __init__(
        self, config: RunConfig, topology: str, compiler: TpuCompiler, part: Slice, search: bool, quick: bool
    ) -> None:
        self._config, self._topology, self._compiler, self._part = config, topology, compiler, part
        self._search, self._quick = search, quick

    def run(self, chip: Chip) -> TpuVerdict:
        """What there is to say about it."""
        from trainer.strategies.tpu_lowering import TpuLowering

        batch_size = self._config.data.batch_size
        common = (self._topology, batch_size, self._config.precision, self._part, chip)
        try:
            lowering = TpuLowering(self._config.for_one_process(), self._part.devices)
        except ValueError as error:
            if not is_ours(error) or type(error) is not ValueError:
                raise
            return _refused(*common, problems=str(error).splitlines())
        began = time.monotonic()
        outcome = self._compiled(lowering, batch_size)
        is_quick = self._quick
        self._quick |= time.monotonic() - began > _SLOW_S
        if isinstance(outcome, Refusal) and outcome.needed is None:
            return _refused(*common, [f"this model cannot be compiled: {outcome.sentence}"], outcome)
        largest = self._largest(lowering, batch_size, outcome, chip.usable_hbm) if self._search else None
        if isinstance(outcome, Refusal):
            return _refused(*common, [_too_large(batch_size, outcome, largest, chip.usable_hbm)], outcome, largest)
        bounds = roofline(chip, self._part, outcome, lowering.state_bytes, lowering.batch_bytes(batch_size))
        return TpuVerdict(
            self._topology,
            True,
            [],
            batch_size,
            self._config.precision,
            self._part,
            chip,
            hbm_of(outcome),
            collected(outcome.collectives),
            outcome.flops,
            outcome.compile_s,
            bounds,
            largest,
            is_quick,
        )

    def _compiled(self, lowering: "TpuLowering", batch_size: int) -> Compiled | Refusal:
        import tensorflow as tf

        try:
            program = lowering.program(batch_size)
        except (ValueError, tf.errors.OpError) as error:
            return refusal_of(str(error), lowering.layers)
        outcome = self._at_some_level(program)
        if isinstance(outcome, Compiled):
            return outcome
        if "c128" in outcome and (node := lowering.node_with(batch_size, "c128")):
            outcome += f"{{{{node {node}}}}}"
        return refusal_of(outcome, lowering.layers)

    def _at_some_level(self, program: bytes) -> Compiled | str:
        """Compiles at the usual level, and at the quick one where that takes too long."""
        if not self._quick:
            try:
                return self._compiler.compile(program, within_s=_SHARE * self._compiler.limit_s)
            except OutOfTime:
                self._compiler.restart()
                self._quick = True
        return self._compiler.compile(program, quick=True)

    def _largest(self, lowering: "TpuLowering", batch_size: int, outcome: Compiled | Refusal, usable: int) -> Largest:
        def trial(batch_size: int, outcome: Compiled | Refusal) -> Trial | None:
            if isinstance(outcome, Compiled):
                return Trial(batch_size, outcome.total, True)
            return None if outcome.needed is None else Trial(batch_size, outcome.needed, False)

        def compile_batch(batch_size: int) -> Trial | None:
            try:
                return trial(batch_size, self._compiled(lowering, batch_size))
            except OutOfTime:
                return None

        first = trial(batch_size, outcome)
        assert first is not None
        most = lowering.session.schema.num_samples
        return largest_batch(first, compile_batch, lowering.batch_unit, most, usable, lowering.state_bytes)


def _refused(
    topology: str,
    batch_size: int,
    precision: str,
    part: Slice,
    chip: Chip,
    problems: list[str],
    refusal: Refusal | None = None,
    largest: Largest | None = None,
) -> TpuVerdict:
    hbm = {"needed": refusal.needed} if refusal and refusal.needed else {}
    return TpuVerdict(
        topology,
        False,
        problems,
        batch_size,
        precision,
        part,
        chip,
        hbm,
        largest=largest,
        layer=refusal.layer if refusal else None,
        operation=refusal.operation if refusal else None,
    )


def _too_large(batch_size: int, refusal: Refusal, largest: Largest | None, usable: int) -> str:
    assert refusal.needed is not None
    if largest is not None and largest.batch_size is not None:
        change = f"set data.batch_size={largest.batch_size}"
    else:
        change = "set a smaller data.batch_size"
    return (
        f"data.batch_size={batch_size} needs {refusal.needed / 2**30:.2f} GiB of HBM and a device has "
        f"{usable / 2**30:.2f} GiB: {change}, train.accumulate for smaller micro-batches, or "
        "precision=mixed_bfloat16, or take more chips"
    )
