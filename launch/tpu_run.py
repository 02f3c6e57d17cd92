"""A run that makes its own Cloud TPU slice: what it asks for, and what its hosts are told."""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from cluster.config import TpuConfig
from cluster.reserved_port import own_address
from cluster.runtime import Hosts
from cluster.tpu.provider import SliceRequest
from cluster.tpu.wishes import in_order
from cluster.worker_output import Sink
from launch.exit_code import RequestError
from launch.run_config import RunConfig
from trainer.run_folder import RunFolder

_PLAN = "tpu-host.json"
# A host's number in its slice, and where the servers of all of its hosts are.
_METADATA = """\
metadata() {
  curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}
number=$(metadata agent-worker-number || echo 0)
endpoints=$(metadata worker-network-endpoints || echo)
"""
# One process on the first host drives the chips of all, through a server on each. Until the slice is deleted: one
# that waits serves the launcher that is started again after it was killed.
_JOIN = """\
case "$endpoints" in
*,*)
  tpu={name}
  while :; do {python} -m launch.tpu_server "$number" "$endpoints"; sleep 2; done &
  ;;
esac
if [ "$number" = 0 ]; then
  while :; do {python} -m launch.tpu_host {run} $tpu; sleep 2; done
fi
wait"""


@dataclass(frozen=True)
class HostPlan:
    """What the agent on a slice's first host is told, through the run folder, which is on storage that both share.

    Attributes:
        host: what the host is called: the slice's name.
        launcher: the address that the launcher listens at.
        secret: of the run.
        probe: the name of a file in the run folder that shows whether this is the launcher's.
        folder: where the launcher was started, which paths in the config may count from.
        notice_s: seconds between SIGTERM to the agent and its end.
        key: that the workers of this launch share.
    """

    host: str
    launcher: str
    secret: str
    probe: str
    folder: str
    notice_s: float
    key: Mapping[str, str]

    def write(self, run: Path) -> None:
        """Leaves it in a run folder, for the launcher's user alone where the storage knows users."""
        temporary = run / f".{_PLAN}.new"
        with open(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
        os.replace(temporary, run / _PLAN)

    @classmethod
    def read(cls, run: Path) -> "HostPlan | None":
        """What a launcher has left in a run folder; None where nobody has."""
        try:
            return cls(**json.loads((run / _PLAN).read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None

    @staticmethod
    def remove(run: Path) -> None:
        """Takes it away: no host joins any more."""
        (run / _PLAN).unlink(missing_ok=True)


def check_wishes(config: RunConfig) -> None:
    """Makes sure that what the config asks for can be asked for, before anything is.

    Raises:
        RequestError: the project or the zone is not known.
        ValueError: the API takes no such name or label, or the extra is not installed.
    """
    from cluster.tpu.cloud_api import check_installed

    check_installed()
    requests_of(config, 0.0)


def requests_of(config: RunConfig, expires: float) -> list[SliceRequest]:
    """What to ask for, the first that works.

    Args:
        config: of the run.
        expires: seconds since 1970 when the hosts delete their slice.
    """
    tpu, run = config.cluster.tpu, RunFolder(config.run.folder).path.absolute()
    name, zones = slice_name(run), _zones(tpu)
    join = _JOIN.format(python=shlex.quote(tpu.python), run=shlex.quote(str(run)), name=name)
    setup = tpu.setup and tpu.setup.rstrip("\n") + "\n"
    wish = SliceRequest(
        name,
        zones[0],
        tpu.accelerator[0],
        tpu.runtime_version,
        tpu.purchase,
        queued=tpu.queued,
        network=tpu.network,
        subnetwork=tpu.subnetwork,
        external_ips=tpu.external_ips,
        service_account=tpu.service_account,
        reservation=tpu.reservation,
        startup_script=_METADATA + setup + join,
    )
    package = f"phalanx=={version('phalanx')}" if tpu.package == "auto" else tpu.package
    return in_order(wish, _project(tpu), zones, tpu.accelerator, expires, package)


def slice_name(run: Path) -> str:
    """The name of a run's slice, and its label: the same whenever the run is started again, and no other run's."""
    digest = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", run.name.lower()).strip("-")[:22].strip("-")
    return "-".join(part for part in ("phalanx", readable, digest) if part)


def tpu_hosts(
    config: RunConfig,
    folder: RunFolder,
    key: Mapping[str, str],
    on_output: Sink,
    announce: Callable[[str], object],
) -> Hosts:
    """The slice of a run, not asked for yet."""
    from cluster.shared_folder import Probe
    from cluster.tpu.cloud_api import CloudTpuApi
    from cluster.tpu.patience import Patience
    from cluster.tpu_hosts import TpuHosts

    tpu, run = config.cluster.tpu, folder.path.absolute()
    patience, name, notice_s = Patience(), slice_name(run), config.cluster.notice
    probe = Probe(run)
    max_run_s = 3600 * tpu.max_run

    def publish(address: str, secret: str) -> None:
        probe.__enter__()
        HostPlan(name, address, secret, probe.name, os.getcwd(), notice_s, key).write(run)

    def conceal() -> None:
        HostPlan.remove(run)
        probe.__exit__()

    return TpuHosts(
        CloudTpuApi(_project(tpu)),
        requests_of(config, patience.clock.now() + max_run_s),
        name,
        listen=tpu.listen or own_address(),
        publish=publish,
        conceal=conceal,
        max_run_s=max_run_s,
        wait_s=tpu.wait,
        notice_s=notice_s,
        on_output=on_output,
        announce=announce,
        patience=patience,
    )


def _project(tpu: TpuConfig) -> str:
    project = tpu.project or os.environ.get("GOOGLE_CLOUD_PROJECT") or os.environ.get("CLOUDSDK_CORE_PROJECT")
    if not project:
        raise RequestError(
            "cluster.kind=tpu must know a Google Cloud project: set cluster.tpu.project, or GOOGLE_CLOUD_PROJECT"
        )
    return project


def _zones(tpu: TpuConfig) -> tuple[str, ...]:
    zones = tpu.zones or tuple(filter(None, [os.environ.get("CLOUDSDK_COMPUTE_ZONE")]))
    if not zones:
        raise RequestError(
            "cluster.kind=tpu must know a zone: set cluster.tpu.zones=[us-central1-a], or CLOUDSDK_COMPUTE_ZONE"
        )
    return zones
