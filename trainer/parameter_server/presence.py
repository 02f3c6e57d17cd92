"""Whether a server listens at an address: known without asking TensorFlow, which may wait for ever."""

from __future__ import annotations

import socket

_ANSWER_S = 1.0


def listens(address: str) -> bool:
    """Whether something takes connections at "host:port". Where nobody answers at all, it may only be slow: True.

    >>> with socket.create_server(("127.0.0.1", 0)) as server:
    ...     listens(f"127.0.0.1:{server.getsockname()[1]}")
    True
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True
