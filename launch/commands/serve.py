"""`phalanx serve MODEL`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from launch.exit_code import ExitCode, RequestError


def serve(
    models: Annotated[list[str], typer.Argument(help="Folder of a model or of its versions, NAME=FOLDER, or a NAME.")],
    repository: Annotated[Path | None, typer.Option(help="Model repository that the names are in.")] = None,
    alias: Annotated[str | None, typer.Option(help="Alias of the repository to follow. [the newest version]")] = None,
    canary: Annotated[str | None, typer.Option(help="Alias or version that gets a share of the requests.")] = None,
    canary_percent: Annotated[float, typer.Option(help="That share.")] = 0.0,
    shadow: Annotated[str | None, typer.Option(help="Alias or version that gets a copy of the requests.")] = None,
    keys: Annotated[list[Path] | None, typer.Option(help="Public key of a signer, or a folder of them.")] = None,
    allow_unsigned: Annotated[bool, typer.Option(help="Load models that nobody signed.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of gRPC; 0: any free one.")] = 8500,
    rest_port: Annotated[int, typer.Option(help="Of REST; 0: any free one.")] = 8501,
    tls_certificate: Annotated[Path | None, typer.Option(help="Certificate of the server, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Whose certificates clients must bring, PEM.")] = None,
    clients: Annotated[Path | None, typer.Option(help="File of those who may ask, made by phalanx tokens.")] = None,
    audit_log: Annotated[Path | None, typer.Option(help="File that is told of every request.")] = None,
    json_log: Annotated[
        Path | None, typer.Option(help="File of JSON lines: requests, batches, events; -: stderr.")
    ] = None,
    cloud_project: Annotated[str | None, typer.Option(help="Google Cloud project that its traces belong to.")] = None,
    otlp_traces_endpoint: Annotated[
        str | None, typer.Option(help="Post spans here by OTLP over HTTP. [what OTEL_EXPORTER_OTLP_ENDPOINT names]")
    ] = None,
    allow_insecure: Annotated[bool, typer.Option(help="Listen beyond this machine without TLS or tokens.")] = False,
    sandbox: Annotated[
        str, typer.Option(help="off: keep all rights of this user; for kernels without Landlock.")
    ] = "on",
    latency_bound_ms: Annotated[float, typer.Option(help="Who would wait longer is refused at once.")] = 200.0,
    config: Annotated[Path | None, typer.Option(help="YAML file with more settings; its keys win.")] = None,
    on: Annotated[str, typer.Option(help="here, or ray: one server on each node of a Ray cluster.")] = "here",
    replicas: Annotated[int | None, typer.Option(min=1, help="Servers at most. [ray; one a node]")] = None,
    replica_cpus: Annotated[float, typer.Option(help="CPUs of a node that a server takes. [ray]")] = 1.0,
    replica_gpus: Annotated[float, typer.Option(help="GPUs of a node that a server takes. [ray]")] = 0.0,
    ray_address: Annotated[str | None, typer.Option(help="host:port of the cluster's head. [RAY_ADDRESS]")] = None,
    endpoints: Annotated[Path | None, typer.Option(help="File that lists the servers that are ready. [ray]")] = None,
) -> int:
    """Serve models by TensorFlow Serving's protocols until SIGTERM."""
    import logging
    import os
    import signal

    import yaml
    from pydantic import ValidationError

    from delivery.serving.otlp_endpoint import endpoint_in, is_off
    from delivery.serving.settings import STANDARD_ERROR, ServingSettings

    follow = {"alias": alias, "canary": canary, "canary_percent": canary_percent, "shadow": shadow}
    given: dict[str, Any] = {
        "models": [{**_place(model, repository), **follow} for model in models],
        "host": host,
        "grpc_port": port,
        "rest_port": rest_port,
        "trust": {"keys": keys or [], "allow_unsigned": allow_unsigned},
        "batching": {"latency_bound_ms": latency_bound_ms},
        "clients": clients,
        "audit_log": audit_log,
        "json_log": json_log,
        "cloud_project": cloud_project,
        "otlp_traces_endpoint": otlp_traces_endpoint,
        "allow_insecure": allow_insecure,
        "sandbox": sandbox,
    }
    if tls_certificate or tls_key or tls_client_ca:
        tls = {"certificate": tls_certificate, "key": tls_key, "client_ca": tls_client_ca}
        given["tls"] = {name: path for name, path in tls.items() if path is not None}
    if config is not None:
        given |= yaml.safe_load(config.read_text()) or {}
    if is_off(os.environ):
        given["otlp_traces_endpoint"] = None
    elif given["otlp_traces_endpoint"] is None:
        try:
            given["otlp_traces_endpoint"] = endpoint_in(os.environ)
        except ValueError as error:
            raise RequestError(str(error)) from None
    try:
        settings = ServingSettings.model_validate(given)
    except ValidationError as error:
        sentences = (
            ".".join(map(str, one["loc"])) + ": " * bool(one["loc"]) + one["msg"].removeprefix("Value error, ")
            for one in error.errors()
        )
        raise RequestError("\n".join(sentences)) from None

    if on == "ray":
        from launch.ray_serving import RayServing, serve_on_ray

        return serve_on_ray(RayServing(ray_address, replicas, replica_cpus, replica_gpus, endpoints), settings)
    if on != "here" or replicas or ray_address or endpoints:
        raise RequestError(f"--on {on} must be here or ray, and --replicas, --ray-address, --endpoints are for ray")

    from launch.quiet_start import import_tensorflow

    confined = None
    if settings.sandbox == "on":
        from delivery.serving.sandbox import confine

        confined = confine(settings)  # before TensorFlow, which begins threads
    import_tensorflow()
    import uvloop

    from delivery.serving.server import serve as serve_until_stopped

    if settings.json_log == STANDARD_ERROR:
        logging.getLogger().setLevel(settings.log_level)
    else:
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    if confined is not None:
        facts = {"landlock": confined.version, "network": confined.network}
        log = logging.getLogger("phalanx.serving")
        log.info("confined", extra=facts)
        for sentence in confined.exposed:
            log.warning(sentence)

    def ready(grpc_port: int, rest_port: int) -> None:
        typer.echo(f"ready  gRPC {settings.host}:{grpc_port}  REST {settings.host}:{rest_port}")

    stopped_by = uvloop.run(serve_until_stopped(settings, ready))
    return ExitCode.STOPPED if stopped_by == signal.SIGINT else ExitCode.DONE


def _place(model: str, repository: Path | None) -> dict[str, Any]:
    """Name and folder of a model as it was typed."""
    name, sign, path = model.partition("=")
    if sign:
        return {"name": name, "path": Path(path)}
    if repository is not None:
        return {"name": model, "path": repository / model}
    folder = Path(model).resolve()
    if not folder.is_dir():
        raise RequestError(f"{model} is no folder: name one, or pass --repository with the folder that {model} is in")
    if (folder / "saved_model.pb").is_file():
        folder = folder.parent
    return {"name": folder.parent.name if folder.name == "export" else folder.name, "path": Path(model)}
