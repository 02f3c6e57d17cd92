"""The line of the audit log that says who changed a model's entry, and how."""

from __future__ import annotations

import getpass
import os
import socket
from datetime import datetime, timezone
from typing import Any

from delivery.package.signing_keys import time_text


def audit_record(name: str, serial: int, action: str, **what: Any) -> dict[str, Any]:
    """A record of now.

    Args:
        name: Of the model.
        serial: Of the change.
        action: published, promoted, rolled_back or pruned.
        what: alias, from, to, reason; None where left out.
    """
    return {
        "time": time_text(datetime.now(timezone.utc)),
        "who": f"{_user()}@{socket.gethostname()}",
        "action": action,
        "model": name,
        **{field: what.get(field) for field in ("alias", "from", "to", "reason")},
        "serial": serial,
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        return str(os.getuid())
