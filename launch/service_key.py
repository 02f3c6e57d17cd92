"""The secret that the training processes and the service workers of one launch share."""

import os

from cluster.mutual_proof import new_secret

_NAME = "PHALANX_DATA_SERVICE_KEY"


def new_service_key() -> dict[str, str]:
    """A new secret, as the environment that processes are started with."""
    return {_NAME: new_secret()}


def service_key() -> bytes | None:
    """The secret of the launch that this process belongs to; None: the run has no data service. The processes that this
    one starts do not inherit it."""
    key = os.environ.pop(_NAME, None)
    return None if key is None else bytes.fromhex(key)


def key_of(environment: dict[str, str]) -> bytes:
    """The secret in an environment that `new_service_key` gave."""
    return bytes.fromhex(environment[_NAME])
