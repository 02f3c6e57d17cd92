"""What `phalanx tpu` does with slices."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer

from cluster.tpu.cloud_api import CloudTpuApi
from cluster.tpu.orphans import orphans_of
from cluster.tpu.patience import Patience
from cluster.tpu.provider import Slice, SliceRequest, State, TpuProvider
from cluster.tpu.slice_keeper import NoResources, SliceKeeper
from cluster.tpu.wishes import in_order
from launch.exit_code import ExitCode, RequestError
from trainer.observe.number_text import format_duration


def create_slice(
    wish: SliceRequest,
    project: str,
    zones: Sequence[str],
    types: Sequence[str],
    max_run_hours: float,
    wait_s: float | None,
    as_json: bool,
    patience: Patience | None = None,
) -> int:
    """Makes a slice; what was asked for is taken back when it does not become ready, or on Ctrl-C.

    Args:
        wish: what is asked for in each zone, in their order, and of each type, in theirs.
        project: of Google Cloud.
        max_run_hours: after which the slice is to be gone.
        wait_s: seconds until it must be ready; None: it is only asked for.
        as_json: whether programs read the answer.
        patience: with the provider.
    """
    patience = patience or Patience()
    max_run_s = 3600 * max_run_hours
    requests = in_order(wish, project, zones, types, patience.clock.now() + max_run_s)
    keeper = SliceKeeper(CloudTpuApi(project), requests, wish.name, max_run_s, patience, _note)
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


def labels_of(texts: Sequence[str]) -> dict[str, str]:
    """Labels as they are given on the command line.

    Raises:
        RequestError: one is not KEY=VALUE.
    """
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise RequestError(f"--label {text} must be KEY=VALUE: add what it is")
        labels[key] = value
    return labels


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
