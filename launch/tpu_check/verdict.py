"""What the compiler of TPUs says about a config, as data and as a page for people."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from launch.tpu_check.batch_search import Largest
from launch.tpu_check.chips import Chip
from launch.tpu_check.compiler import Compiled, Slice
from launch.tpu_check.roofline import Roofline
from trainer.observe.number_text import format_bytes, format_count, format_duration

PROVES = (
    "the training step of this config, optimizer and sum over the replicas included, compiles for this slice",
    "it fits into the memory of each device, at the sizes shown",
)
PROVES_NOT = (
    "speed: a bound is no measurement",
    "the way of the data: whether the hosts read, decode and hand over as fast as the chips take",
    "TensorFlow's own driver for TPUs, whose version of the compiler is another than the one used here",
    "evaluation, start-up, and anything that happens between hosts",
)


@dataclass(frozen=True)
class TpuVerdict:
    """Whether a config's step runs on a slice, and what it needs.

    Attributes:
        ok: it compiles and fits.
        problems: why not, one sentence each.
        batch_size: of the global batch.
        hbm: bytes of a device by what they are for; "needed" alone where the program was refused for them.
        usable_hbm_bytes: that a device gives a program.
        collectives: kind, number and bytes in a step.
        flops: of a device in a step.
        compile_s: seconds of the compiler, on this machine.
        is_quick: it was compiled at the lowest level of optimization, which overstates temporaries.
        layer: at fault.
        operation: at fault.
    """

    topology: str
    ok: bool
    problems: list[str]
    batch_size: int
    precision: str
    part: Slice
    chip: Chip
    hbm: dict[str, int] = field(default_factory=dict)
    collectives: list[dict[str, Any]] = field(default_factory=list)
    flops: float | None = None
    compile_s: float | None = None
    roofline: Roofline | None = None
    largest: Largest | None = None
    is_quick: bool = False
    layer: str | None = None
    operation: str | None = None

    @property
    def usable_hbm_bytes(self) -> int:
        """That a device gives a program."""
        return self.chip.usable_hbm

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        roofline = self.roofline and {
            **asdict(self.roofline), "bound_s": self.roofline.bound_s, "limit": self.roofline.limit,
        }  # fmt: skip
        largest = self.largest and {
            "batch_size": self.largest.batch_size,
            "refused": self.largest.refused,
            "trials": [trial._asdict() for trial in self.largest.trials],
        }
        return {
            "ok": self.ok,
            "topology": self.topology,
            "problems": self.problems,
            "layer": self.layer,
            "operation": self.operation,
            "devices": self.part.devices,
            "chips": self.part.chips,
            "kind": self.part.kind,
            "batch_size": self.batch_size,
            "batch_size_per_replica": self.batch_size // self.part.devices,
            "precision": self.precision,
            "hbm": {
                **{f"{name}_bytes": size for name, size in self.hbm.items()},
                "usable_bytes": self.usable_hbm_bytes,
            },
            "largest_batch": largest,
            "collectives": self.collectives,
            "flops": self.flops,
            "roofline": roofline,
            "assumed": assumed(self.chip),
            "compile_s": self.compile_s,
            "level": "quick" if self.is_quick else "usual",
            "proves": list(PROVES) if self.ok else [],
            "proves_not": list(PROVES_NOT),
        }


def assumed(chip: Chip) -> dict[str, float]:
    """The peak figures of a chip that bounds follow from."""
    return {
        "flops": chip.flops,
        "hbm_bytes_per_s": chip.hbm_bytes_per_s,
        "link_bytes_per_s": chip.link_bytes_per_s,
        "usable_hbm_bytes": chip.usable_hbm,
    }


def hbm_of(compiled: Compiled) -> dict[str, int]:
    """Bytes of a device by what they are for."""
    return {
        "arguments": compiled.arguments,
        "outputs": compiled.outputs,
        "alias": compiled.alias,
        "temporaries": compiled.temporaries,
        "code": compiled.code,
        "needed": compiled.total,
    }


def collected(collectives: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Collectives of one kind together, with their number and bytes."""
    kinds = dict.fromkeys(collective["kind"] for collective in collectives)
    return [
        {
            "kind": kind,
            "count": sum(c["kind"] == kind for c in collectives),
            "bytes": sum(c["bytes"] for c in collectives if c["kind"] == kind),
        }
        for kind in kinds
    ]


def describe(verdict: TpuVerdict) -> str:
    """A few lines for people."""
    part, per_replica = verdict.part, verdict.batch_size // verdict.part.devices
    rows: dict[str, str] = {
        "slice": f"{verdict.topology}: {part.chips} chips, {part.devices} replicas ({part.kind})",
        "batch": f"{verdict.batch_size} samples, {per_replica} a replica, {verdict.precision}",
    }
    if verdict.hbm:
        rows |= _memory_rows(verdict)
    if verdict.largest is not None:
        rows["largest batch"] = _largest(verdict.largest)
    if verdict.ok and verdict.flops is not None and verdict.roofline is not None:
        rows["collectives"] = (
            ", ".join(f"{c['count']} {c['kind']}, {format_bytes(c['bytes'])}" for c in verdict.collectives) or "none"
        )
        rows |= _speed_rows(verdict, verdict.flops, verdict.roofline)
        level = ", at the quick level, which overstates temporaries" if verdict.is_quick else ""
        rows["compiled in"] = f"{format_duration(verdict.compile_s or 0.0)}{level}"
    width = max(len(name) for name in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows.items()]
    if verdict.ok:
        lines += ["this proves that", *(f"  {text}" for text in PROVES)]
        lines += ["it does not prove", *(f"  {text}" for text in PROVES_NOT)]
    return "\n".join(
        [*lines, *(f"problem: {problem}" for problem in verdict.problems), *(["ok"] if verdict.ok else [])]
    )


def _memory_rows(verdict: TpuVerdict) -> Mapping[str, str]:
    hbm, usable = verdict.hbm, verdict.usable_hbm_bytes
    total = f"{format_bytes(hbm['needed'])} of {format_bytes(usable)} on each device"
    if "arguments" not in hbm:
        return {"memory": f"at least {total}"}
    return {
        "memory": f"{total}, {100 * hbm['needed'] / usable:.0f}%",
        "  arguments": f"{format_bytes(hbm['arguments'])} (state and a block of batches)",
        "  outputs": f"{format_bytes(hbm['outputs'])}, of which {format_bytes(hbm['alias'])} take the arguments' place",
        "  temporaries": format_bytes(hbm["temporaries"]),
        "  program": format_bytes(hbm["code"]),
    }


def _largest(largest: Largest) -> str:
    trials = f"{len(largest.trials)} batches compiled"
    if largest.batch_size is None:
        return f"below {largest.refused} ({trials})"
    if largest.refused is None:
        return f"at least {largest.batch_size}, no larger one was tried ({trials})"
    return f"{largest.batch_size} fits, {largest.refused} does not ({trials})"


def _speed_rows(verdict: TpuVerdict, flops: float, bounds: Roofline) -> Mapping[str, str]:
    chip = verdict.chip
    peak = f"{chip.flops / 1e12:g} TFLOP/s in bfloat16, {chip.hbm_bytes_per_s / 1e9:g} GB/s of HBM"
    return {
        "operations": f"{format_count(flops)} FLOP a replica and step",
        "step at least": f"{_short(bounds.bound_s)}, by {bounds.limit} (compute "
        f"{_short(bounds.compute_s)}, state and batch through HBM {_short(bounds.state_s)}, links "
        f"{_short(bounds.links_s)}; all that the program reads and writes {_short(bounds.traffic_s)})",
        "assumed of a chip": f"{peak}, {chip.link_bytes_per_s / 1e9:g} GB/s over its links",
    }


def _short(seconds: float) -> str:
    return f"{1e6 * seconds:.3g}us" if seconds < 1e-3 else f"{1e3 * seconds:.3g}ms"
