"""What a step takes at least, from what the chip can do at its best (Williams et al., "Roofline", CACM 2009)."""

from dataclasses import dataclass

from launch.tpu_check.chips import Chip
from launch.tpu_check.compiler import Compiled, Slice


@dataclass(frozen=True)
class Roofline:
    """Seconds of a step for each thing that limits it; a real step takes longer.

    Attributes:
        compute_s: for the operations, at the peak of bfloat16.
        state_s: to read and write state and batch once, at the peak of HBM.
        traffic_s: the same for all that the compiled program reads and writes. The compiler counts on-chip accesses as
            well, so that it may be too high.
        links_s: for a ring over all replicas to send what the collectives hand over.
        bound_s: no step can be faster.
        limit: which of compute, memory and links that is.
    """

    compute_s: float
    state_s: float
    traffic_s: float
    links_s: float

    @property
    def bound_s(self) -> float:
        """The largest of what cannot be avoided."""
        return max(self.compute_s, self.state_s, self.links_s)

    @property
    def limit(self) -> str:
        """What gives the bound."""
        return max((self.compute_s, "compute"), (self.state_s, "memory"), (self.links_s, "links"))[1]


def roofline(chip: Chip, part: Slice, compiled: Compiled, state_bytes: int, batch_bytes: int) -> Roofline:
    """The bounds of a compiled step.

    Args:
        chip: with the figures of a chip, of which a device may be half.
        part: the slice.
        compiled: one replica's program.
        state_bytes: of a replica.
        batch_bytes: that a replica reads in a step.
    """
    share = part.chips / part.devices
    reduced = sum(collective["bytes"] for collective in compiled.collectives)
    sent = 2 * (part.devices - 1) / part.devices * reduced
    return Roofline(
        compute_s=compiled.flops / (share * chip.flops),
        state_s=(2 * state_bytes + batch_bytes) / (share * chip.hbm_bytes_per_s),
        traffic_s=compiled.bytes_accessed / (share * chip.hbm_bytes_per_s),
        links_s=sent / (share * chip.link_bytes_per_s),
    )
