"""What a TPU's hosts run when they boot: a limit to their life, Phalanx at this version, and the command to join."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

# A host that outlives its run deletes its own slice, with the rights of the service account that it has. This is the
# last line: whoever made the slice deletes it before.
_LIMIT = """\
(
  metadata() {{ curl -s -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/$1"; }}
  while [ "$(date +%s)" -lt {expires} ]; do sleep 60; done
  while :; do
    token=$(metadata instance/service-accounts/default/token | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
    curl -s -X DELETE -H "Authorization: Bearer $token" 'https://tpu.googleapis.com/v2/{resource}'
    sleep 60
  done
) > /var/log/phalanx-limit.log 2>&1 &
"""
_INSTALL = """\
python3 -m venv /opt/phalanx
/opt/phalanx/bin/pip install --quiet 'tensorflow-tpu==2.20.0' 'libtpu==0.0.20' 'keras>=3.12,<3.16'
/opt/phalanx/bin/pip install --quiet --no-deps {package} 'tensorflow-serving-api>=2.19'
/opt/phalanx/bin/pip install --quiet numpy pillow pydantic pyyaml rich safetensors psutil google-crc32c \\
  prometheus-client tokenizers typer tensorboard
"""


def startup_script(
    command: str,
    *,
    expires: float | None = None,
    resource: str | None = None,
    package: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The script, for bash.

    Args:
        command: What the host does when it is ready, such as "ray start ..."; may be empty.
        expires: Seconds since 1970 when the host deletes its slice; None: never.
        resource: Name of the slice in the API, "projects/P/locations/Z/queuedResources/NAME?force=true" or
            ".../nodes/NAME"; with `expires`.
        package: What pip installs as Phalanx, such as "phalanx==0.1.0" or a wheel in a bucket; None: nothing is
            installed.
        environment: For the command.

    >>> print(startup_script("ray start --address=10.0.0.2:6379", environment={"A": "x y"}))
    #!/bin/bash
    export A='x y'
    ray start --address=10.0.0.2:6379
    <BLANKLINE>
    """
    parts = ["#!/bin/bash\n"]
    if expires is not None:
        assert resource is not None and re.fullmatch(r"[-\w/.?=]+", resource), "names have no other characters"
        parts.append(_LIMIT.format(expires=int(expires), resource=resource))
    if package is not None:
        parts.append("set -e\n" + _INSTALL.format(package=shlex.quote(package)))
    parts += [f"export {name}={shlex.quote(value)}\n" for name, value in (environment or {}).items()]
    return "".join(parts) + (command + "\n" if command else "")
