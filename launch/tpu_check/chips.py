"""What is assumed of each generation of TPU chips.

Peak figures of a chip are those that Google publishes: v2 and v3 in Jouppi et al., "A domain-specific supercomputer for
training deep neural networks" (CACM 2020), v4 and the links of v3 in Jouppi et al., "TPU v4" (ISCA 2023), later ones on
the pages of Cloud TPU's documentation about each version, whose links count both directions. The HBM that a program may
use is what the compiler of `constraints.txt` says when a program needs more.
"""

from dataclasses import dataclass

_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """A generation.

    Attributes:
        name: as in a topology.
        flops: operations a second of a chip in bfloat16, at its peak.
        hbm_bytes_per_s: of a chip.
        link_bytes_per_s: that a chip sends over all its links to other chips.
        usable_hbm: bytes that the compiler gives a program on a device, which is a chip or, before v5e, one of its two
            cores.
        example: a topology.
    """

    name: str
    flops: float
    hbm_bytes_per_s: float
    link_bytes_per_s: float
    usable_hbm: int
    example: str


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v2", 46e12, 700e9, 4 * 62e9, int(7.48 * _GIB), "v2:2x2"),
        Chip("v3", 123e12, 900e9, 4 * 70e9, int(15.48 * _GIB), "v3:2x2"),
        Chip("v4", 275e12, 1200e9, 6 * 50e9, int(15.25 * _GIB), "v4:2x2x1"),
        Chip("v5e", 197e12, 819e9, 200e9, int(15.75 * _GIB), "v5e:2x2"),
        Chip("v5p", 459e12, 2765e9, 600e9, int(95.73 * _GIB), "v5p:2x2x1"),
        Chip("v6e", 918e12, 1638e9, 400e9, int(31.24 * _GIB), "v6e:2x2"),
    )
}


def chip_of(topology: str) -> Chip:
    """The generation of a topology such as "v5e:2x2".

    Raises:
        ValueError: it has not that form, or the generation is unknown.
    """
    name, _, shape = topology.partition(":")
    if name not in CHIPS or not all(part.isdigit() and int(part) for part in shape.split("x")):
        examples = ", ".join(chip.example for chip in CHIPS.values())
        raise ValueError(f"--tpu {topology} must be a generation and the shape of a slice: give one such as {examples}")
    return CHIPS[name]
