"""`phalanx tpu ...`: slices of Cloud TPUs, made and given back by hand."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Create, list, describe, delete and wait for Cloud TPU slices.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Of the slice.")]
Project = Annotated[
    str, typer.Option(envvar=["GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"], help="Google Cloud project.")
]
Zones = Annotated[
    list[str],
    typer.Option("--zone", envvar="CLOUDSDK_COMPUTE_ZONE", help="Such as us-central1-a; several are tried in order."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]


@app.command("create")
def create(
    name: Name,
    project: Project,
    zone: Zones,
    types: Annotated[list[str], typer.Option("--type", help="Such as v5litepod-4; several are tried in order.")],
    runtime_version: Annotated[str, typer.Option(help="Of the hosts' software.")] = "tpu-ubuntu2204-base",
    spot: Annotated[bool, typer.Option("--spot", help="Cheaper, and may be taken away.")] = False,
    reserved: Annotated[bool, typer.Option("--reserved", help="From a reservation.")] = False,
    reservation: Annotated[str | None, typer.Option(help="Full name of the reservation.")] = None,
    queued: Annotated[bool, typer.Option("--queued/--direct", help="Wait in a queue where there is no room.")] = True,
    slices: Annotated[int, typer.Option(min=1, help="Slices that are made together or not at all.")] = 1,
    network: Annotated[str | None, typer.Option(help="Of the hosts.")] = None,
    subnetwork: Annotated[str | None, typer.Option(help="Of the hosts.")] = None,
    external_ips: Annotated[bool, typer.Option(help="Whether hosts have public addresses.")] = True,
    service_account: Annotated[str | None, typer.Option(help="That the hosts act as.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="For whoever looks.")] = None,
    script: Annotated[
        Path | None, typer.Option("--startup-script", exists=True, dir_okay=False, help="Run by each host at boot.")
    ] = None,
    max_run_hours: Annotated[float, typer.Option(min=0.01, help="After which the slice deletes itself.")] = 24.0,
    wait: Annotated[bool, typer.Option(help="Until it is ready; without, one request to the first zone.")] = True,
    wait_limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Then it is taken back.")] = 3600.0,
    as_json: AsJson = False,
) -> int:
    """Make a slice, once, in the first zone that has room; a repeated command finds the one that is there."""
    from cluster.tpu.provider import SliceRequest
    from launch.exit_code import RequestError
    from launch.tpu_slices import create_slice, labels_of

    if spot and reserved:
        raise RequestError(
            "--spot and --reserved must not be given together: a slice is paid for in one way, so remove one"
        )
    wish = SliceRequest(
        name,
        zone[0],
        types[0],
        runtime_version,
        purchase="spot" if spot else "reserved" if reserved or reservation else "on-demand",
        num_slices=slices,
        queued=queued,
        network=network,
        subnetwork=subnetwork,
        external_ips=external_ips,
        service_account=service_account,
        reservation=reservation,
        labels=labels_of(label or ()),
        startup_script=script.read_text(encoding="utf-8") if script else "",
    )
    return create_slice(wish, project, zone, types, max_run_hours, wait_limit if wait else None, as_json)


@app.command("list")
def list_(
    project: Project,
    zone: Zones,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Only those that nobody needs; exit code 1 if any.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """List Phalanx's slices."""
    from launch.tpu_slices import list_slices

    return list_slices(project, zone, orphans, as_json)


@app.command("describe")
def describe(name: Name, project: Project, zone: Zones, as_json: AsJson = False) -> int:
    """Show a slice with its health."""
    from launch.tpu_slices import describe_slice

    return describe_slice(project, zone, name, as_json)


@app.command("delete")
def delete(
    name: Name,
    project: Project,
    zone: Zones,
    foreign: Annotated[bool, typer.Option("--foreign", help="Also one that Phalanx has not made.")] = False,
) -> int:
    """Delete a slice and wait until it is gone."""
    from launch.tpu_slices import delete_slice

    return delete_slice(project, zone, name, foreign)


@app.command("wait")
def wait(
    name: Name,
    project: Project,
    zone: Zones,
    limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long.")] = 3600.0,
) -> int:
    """Wait until a slice is ready, and say why it is not."""
    from launch.tpu_slices import wait_for_slice

    return wait_for_slice(project, zone, name, limit)
