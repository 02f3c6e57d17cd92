"""`phalanx simulate`: how a training would go on a fleet that fails."""

from typing import Annotated

import typer


def simulate(
    hosts: Annotated[int, typer.Option(help="Hosts that the run uses.")],
    mtbf_h: Annotated[float, typer.Option(help="Hours between two losses of one host, on average.")],
    hours: Annotated[float, typer.Option(help="Hours to look ahead.")],
    workers_per_host: Annotated[int | None, typer.Option(help="Training processes on each host. [1]")] = None,
    spare_hosts: Annotated[int | None, typer.Option(help="More hosts that stand by. [0]")] = None,
    min_hosts: Annotated[int | None, typer.Option(help="Fewest hosts to go on with. [all]")] = None,
    step_s: Annotated[float | None, typer.Option(help="Seconds of a step. [0.3]")] = None,
    snapshot_every: Annotated[int | None, typer.Option(help="Steps between two snapshots. [20]")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between two checkpoints. [1000]")] = None,
    state_bytes: Annotated[int | None, typer.Option(help="Bytes of a snapshot. [60000000]")] = None,
    restart_s: Annotated[float | None, typer.Option(help="Seconds until a lost host is back. [120]")] = None,
    detect_s: Annotated[float | None, typer.Option(help="Seconds until a lost host is known. [10]")] = None,
    start_s: Annotated[float | None, typer.Option(help="Seconds of a worker's start. [3]")] = None,
    take_up_s: Annotated[float | None, typer.Option(help="Seconds from an assignment to the first step. [0.6]")] = None,
    standbys: Annotated[int | None, typer.Option(help="Started workers beyond the members. [one a worker]")] = None,
    max_failures: Annotated[int | None, typer.Option(help="As cluster.max_failures. [10]")] = None,
    wave_every_h: Annotated[float | None, typer.Option(help="Hours between two waves of preemptions. [none]")] = None,
    wave_share: Annotated[float | None, typer.Option(help="Share of the hosts that a wave takes. [0.1]")] = None,
    notice_s: Annotated[float | None, typer.Option(help="Seconds of notice before that. [30]")] = None,
    reform: Annotated[bool, typer.Option(help="Survivors keep their processes.")] = False,
    like: Annotated[str | None, typer.Option(help="Run whose journal the constants are measured from.")] = None,
    sweep: Annotated[str | None, typer.Option(help="Compare values: snapshot_every=10,100,1000.")] = None,
    seed: Annotated[int, typer.Option(help="What all chance is drawn from.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
) -> None:
    """Predict goodput, traffic and the supervisor's load on a fleet of hosts that fail."""
    given = {
        "workers_per_host": workers_per_host,
        "spare_hosts": spare_hosts,
        "min_hosts": min_hosts,
        "step_s": step_s,
        "snapshot_every": snapshot_every,
        "checkpoint_every": checkpoint_every,
        "state_bytes": state_bytes,
        "restart_s": restart_s,
        "detect_s": detect_s,
        "start_s": start_s,
        "take_up_s": take_up_s,
        "standbys": standbys,
        "max_failures": max_failures,
        "wave_every_h": wave_every_h,
        "wave_share": wave_share,
        "notice_s": notice_s,
    }
    import gc

    from cluster.simulation.forecast import forecast
    from cluster.simulation.supervisor_load import measure_load
    from cluster.simulation.workload import Workload
    from launch.forecasts import SOURCES, describe, figures, measured_constants, sweep_of, swept
    from launch.forecasts import as_json as to_json
    from launch.run_lookup import run_named

    chosen = {name: value for name, value in given.items() if value is not None}
    measured = {} if like is None else measured_constants(run_named(like))
    workload = Workload(hosts=hosts, mtbf_h=mtbf_h, hours=hours, seed=seed, reform=reform, **{**measured, **chosen})
    sources = {
        name: "given" if name in chosen else f"measured from {like}" if name in measured else source
        for name, source in SOURCES.items()
    }
    name, values = sweep_of(sweep) if sweep else (None, [])
    gc.disable()  # a fleet is many objects and no cycles: looking for some costs a fifth of the time
    workloads = swept(workload, name, values) if name else [workload]
    found = []
    for one in workloads:
        load = measure_load(one.hosts, one.workers_per_host)
        # As the runtime does it: a heartbeat a second, and progress, thinned out to a tick every two seconds.
        steady = {"events_per_s": one.workers * 2 * 0.5, "cpu": load.cpu(1.0, min(1.0, 1 / one.step_s), 0.5)}
        forecasted = forecast(one)
        found.append((forecasted, figures(forecasted, steady)))
    typer.echo(to_json(found, sources) if as_json else describe(found, sources, name))
