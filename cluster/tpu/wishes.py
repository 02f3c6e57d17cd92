"""What to ask a provider for: one slice, in several places and of several types, the first that works."""

from collections.abc import Sequence
from dataclasses import replace

from cluster.tpu.provider import SliceRequest
from cluster.tpu.startup_script import startup_script


def in_order(
    wish: SliceRequest,
    project: str,
    zones: Sequence[str],
    accelerators: Sequence[str],
    expires: float,
    package: str | None = None,
) -> list[SliceRequest]:
    """The requests: each type in the first zone, then each in the next one.

    Args:
        wish: what they have in common. Its zone and type stand for nothing, and its script is the end of theirs.
        project: of Google Cloud.
        expires: seconds since 1970 when hosts delete their slice.
        package: what hosts install as Phalanx; None: nothing.
    """
    resource = f"queuedResources/{wish.name}?force=true" if wish.queued else f"nodes/{wish.name}"
    return [
        replace(
            wish,
            zone=zone,
            accelerator=accelerator,
            startup_script=startup_script(
                wish.startup_script or "",
                expires=expires,
                resource=f"projects/{project}/locations/{zone}/{resource}",
                package=package,
            ),
        )
        for zone in zones
        for accelerator in accelerators
    ]
