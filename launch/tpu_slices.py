"""What `phalanx tpu` does with slices."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import typer

from cluster.tpu.cloud_api import CloudTpuApi
from cluster.tpu.orphans import orphans_of
from cluster.tpu.patience import Patience
from cluster.tpu.provider import Purchase, Slice, SliceRequest, State, TpuProvider
from cluster.tpu.slice_keeper import NoResources, SliceKeeper
from cluster.tpu.startup_script import startup_script
from launch.exit_code import ExitCode, RequestError
from trainer.observe.number_text import format_duration


@dataclass(frozen=True)
class SliceWish:
    """A slice as it is asked for on the command line; see `cluster.tpu.provider.SliceRequest`.

    Attributes:
        zones: tried in this order.
        types: tried in this order in each zone.
        labels: "key=value" each.
        startup_script: of the user; a limit to the slice's life comes before it.
        max_run_hours: after which the slice is to be gone.
    """

    name: str
    project: str
    zones: Sequence[str]
    types: Sequence[str]
    runtime_version: str
    purchase: Purchase
    reservation: str | None
    queued: bool
    num_slices: int
    network: str | None
    subnetwork: str | None
    external_ips: bool
    service_account: str | None
    labels: Sequence[str]
    startup_script: str
    max_run_hours: float

    def requests(self, expires: float) -> list[SliceRequest]:
        """What to ask for, the first that works.

        Args:
            expires: seconds since 1970 when hosts delete their slice.
        """
        return [self._request(zone, kind, expires) for zone in self.zones for kind in self.types]

    def _request(self, zone: str, kind: str, expires: float) -> SliceRequest:
        labels = {}
        for label in self.labels:
            key, equals, value = label.partition("=")
            if not equals:
                raise RequestError(f"--label {label} must be KEY=VALUE: add what it is")
            labels[key] = value
        resource = f"queuedResources/{self.name}?force=true" if self.queued else f"nodes/{self.name}"
        return SliceRequest(
            self.name,
            zone,
            kind,
            self.runtime_version,
            self.purchase,
            self.num_slices,
            self.queued,
            self.network,
            self.subnetwork,
            self.external_ips,
            self.service_account,
            self.reservation,
            labels,
            startup_script(
                self.startup_script, expires=expires, resource=f"projects/{self.project}/locations/{zone}/{resource}"
            ),
        )


def create_slice(wish: SliceWish, wait_s: float | None, as_json: bool, patience: Patience | None = None) -> int:
    """Makes a slice; what was asked for is taken back when it does not become ready, or on Ctrl-C.

    Args:
        wish: what is asked for.
        wait_s: seconds until it must be ready; None: it is only asked for.
        as_json: whether programs read the answer.
        patience: with the provider.
    """
    patience = patience or Patience()
    max_run_s = 3600 * wish.max_run_hours
    requests = wish.requests(patience.clock.now() + max_run_s)
    keeper = SliceKeeper(CloudTpuApi(wish.project), requests, wish.name, max_run_s, patience, _note)
    if wait_s is None:
        found = keeper.ask()
    else:
        try:
            found = keeper.obtain(wait_s)
        except BaseException:
            _note("what was asked for is taken back")
            keeper.release()
            raise
    _print(found, as_json)
    return ExitCode.DONE


def list_slices(
    project: str, zones: Sequence[str], orphans: bool, as_json: bool, patience: Patience | None = None
) -> int:
    """Lists slices with Phalanx's label; only orphans, and then with a failure where there are any."""
    patience, provider = patience or Patience(), CloudTpuApi(project)
    now = patience.clock.now()
    found = [each for zone in zones for each in patience.until_answered(lambda zone=zone: provider.list(zone))]
    lost = {(o.slice.zone, o.slice.name): o.why for o in orphans_of(found, now)}
    shown = [each for each in found if each.run and (not orphans or (each.zone, each.name) in lost)]
    if as_json:
        rows = [{**_facts(each), "orphan": lost.get((each.zone, each.name))} for each in shown]
        typer.echo(json.dumps(rows, indent=2))
    elif shown:
        for each in shown:
            why = lost.get((each.zone, each.name))
            age = format_duration(max(0.0, now - each.created))
            typer.echo(
                f"{each.name:<24} {each.zone:<16} {each.accelerator:<14} {each.purchase:<10} {each.state.value:<10} "
                f"{age:<7} run {each.run}{f'  ORPHAN: {why}' if why else ''}"
            )
    else:
        typer.echo("no orphans" if orphans else "no slices of Phalanx")
    return ExitCode.FAILED if orphans and shown else ExitCode.DONE


def describe_slice(
    project: str, zones: Sequence[str], name: str, as_json: bool, patience: Patience | None = None
) -> int:
    """Shows a slice, and how it is where it exists."""
    patience, provider = patience or Patience(), CloudTpuApi(project)
    found = _found(provider, patience, zones, name)
    facts = _facts(found)
    if found.state is State.READY:
        facts["health"] = asdict(patience.until_answered(lambda: provider.health(name, found.zone)))
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        for key, value in facts.items():
            typer.echo(f"{key:<12} {value}")
    return ExitCode.DONE


def delete_slice(project: str, zones: Sequence[str], name: str, foreign: bool, patience: Patience | None = None) -> int:
    """Deletes a slice and waits until it is gone."""
    patience, provider = patience or Patience(), CloudTpuApi(project)
    found = _found(provider, patience, zones, name)
    if found.run is None and not foreign:
        raise RequestError(
            f"the slice {name} in {found.zone} was not made by Phalanx: add --foreign to delete it all the same"
        )
    attempt = 0
    while (current := patience.until_answered(lambda: provider.find(name, found.zone))) is not None:
        if current.state is not State.DELETING:
            patience.until_answered(lambda: provider.delete(name, found.zone))
        patience.pause(attempt)
        attempt += 1
    typer.echo(f"the slice {name} in {found.zone} is gone")
    return ExitCode.DONE


def wait_for_slice(
    project: str, zones: Sequence[str], name: str, limit_s: float, patience: Patience | None = None
) -> int:
    """Waits until a slice is ready, saying each new reason why it is not."""
    patience, provider = patience or Patience(), CloudTpuApi(project)
    deadline, attempt, told = patience.clock.now() + limit_s, 0, ""
    while True:
        found = _found(provider, patience, zones, name)
        reason = found.reason or found.state.value
        if found.state is State.READY:
            typer.echo(f"the slice {name} in {found.zone} is ready: {', '.join(found.hosts)}")
            return ExitCode.DONE
        if found.state.is_dead or patience.clock.now() >= deadline:
            raise NoResources(
                f"the slice {name} in {found.zone} is not ready ({reason}): delete it and create another, or wait "
                "longer"
            )
        if reason != told:
            _note(f"{found.zone}: {reason}")
            told = reason
        patience.pause(attempt)
        attempt += 1


def _found(provider: TpuProvider, patience: Patience, zones: Sequence[str], name: str) -> Slice:
    for zone in zones:
        if found := patience.until_answered(lambda zone=zone: provider.find(name, zone)):
            return found
    raise RequestError(f"there is no slice {name} in {', '.join(zones)}: look with phalanx tpu list")


def _facts(each: Slice) -> dict[str, Any]:
    return {**asdict(each), "state": each.state.value, "run": each.run, "expires": each.expires}


def _print(each: Slice, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_facts(each), indent=2))
    else:
        hosts = f": {', '.join(each.hosts)}" if each.hosts else f" ({each.reason})" if each.reason else ""
        typer.echo(f"the slice {each.name} in {each.zone} is {each.state.value}{hosts}")


def _note(text: str) -> None:
    print(f"phalanx: {text}", file=sys.stderr)
