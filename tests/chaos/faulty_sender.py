"""Samples whose readers send wrong data to their peers once they are asked to.

The folder that FAULT names holds a file for each process that shall, named by its number and saying how.
"""

import dataclasses
import os
from pathlib import Path

from cluster.process_group import links
from cluster.process_group.frames import Header, pack_header
from tests.launch import counted_samples


def samples(split: str):
    """Those of `counted_samples`; from now on every frame of this process may be wrong."""
    links.pack_header = _pack_header
    return counted_samples.samples(split)


def _pack_header(header: Header, key: bytes, counter: int) -> bytes:
    place = Path(os.environ["FAULT"], str(os.getpid()))
    match place.read_text() if place.exists() else "":
        case "wrong checksum":
            header = dataclasses.replace(header, checksum=header.checksum ^ 1)
        case "old generation":
            header = dataclasses.replace(header, generation=header.generation - 1)
    return pack_header(header, key, counter)
