"""A service worker without TensorFlow: the block of number n holds n squared, and which process read it.

python -m tests.cluster.data_service.squares
"""

import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.data_service.block import Block
from cluster.data_service.server import BlockServer
from cluster.worker_link import WorkerLink

KEY = bytes(range(32))


def request(number: int) -> dict[str, int]:
    return {"number": number}


def read(request: Mapping[str, Any]) -> Block:
    number = request["number"]
    if number < 0:
        raise ValueError(f"there is no block {number}")
    return Block({"square": np.full((2, 3), number**2, np.int64), "empty": np.zeros((0, 4), np.float32)}, os.getpid())


if __name__ == "__main__":
    link = WorkerLink.from_environment()
    server = BlockServer(link.name, link.host_address, KEY, read)
    link.ready(server.address)
    threading.Event().wait()
