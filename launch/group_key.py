"""The secret that the workers of one launch share: whoever does not know it cannot join their group."""

import os

from cluster.mutual_proof import new_secret

_NAME = "PHALANX_GROUP_KEY"


def new_group_key() -> dict[str, str]:
    """A new secret, as the environment that workers are started with."""
    return {_NAME: new_secret()}


def group_key() -> bytes:
    """The secret of the launch that this process belongs to. The processes that it starts do not inherit it."""
    return bytes.fromhex(os.environ.pop(_NAME))
