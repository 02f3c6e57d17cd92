"""`phalanx repository`: versions of models, and the aliases that say which of them is in use."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Publish models as versions, and move the aliases that servers follow.", no_args_is_help=True)

Repository = Annotated[str, typer.Option("--repository", help="Folder of the repository, or s3://BUCKET/PLACE.")]
Name = Annotated[str, typer.Argument(help="Of the model.")]
Alias = Annotated[str, typer.Option("--to", help="Alias, as staging or production.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Goes into the audit log.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DEFAULT = "models"


def repository_at(place: str) -> Any:
    """The repository in a folder, or in a bucket: both know the same deeds."""
    if "://" in place:
        from delivery.repository.bucket_repository import BucketRepository

        return BucketRepository(place)
    from delivery.repository.model_repository import ModelRepository

    return ModelRepository(Path(place))


@app.command("list")
def show(
    name: Annotated[str | None, typer.Argument(help="Of a model, for its audit log as well.")] = None,
    repository: Repository = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List models with their versions and aliases; of one model, who did what."""
    models = repository_at(repository)
    if name is not None:
        models.check(name)  # says what there is instead
    entries = [
        {
            "name": model,
            "versions": models.versions(model),
            "aliases": models.aliases(model),
            **({"audit": models.audit(model)} if name else {}),
        }
        for model in ([name] if name else models.models())
    ]
    if as_json:
        typer.echo(json.dumps({"repository": str(repository), "models": entries}))
        return
    for entry in entries:
        aliases = "  ".join(f"{alias} {version}" for alias, version in sorted(entry["aliases"].items()))
        typer.echo(f"{entry['name']}  versions {' '.join(map(str, entry['versions']))}  {aliases}".rstrip())
        for line in entry.get("audit", ()):
            alias = f" {line['alias']}" if line["alias"] else ""
            way = " -> ".join(str(line[end]) for end in ("from", "to") if line[end] is not None)
            reason = f"  {line['reason']}" if line["reason"] else ""
            typer.echo(f"  {line['time']}  {line['who']}  {line['action']}{alias} {way}{reason}")


@app.command()
def publish(
    model: Annotated[Path, typer.Argument(help="Package, as in runs/mnist/export/1.")],
    repository: Repository = DEFAULT,
    key: Annotated[
        Path | None, typer.Option("--key", help="Private key: signs the package anew, as the next version.")
    ] = None,
    trust: Annotated[
        list[Path] | None, typer.Option("--trust", help="Public keys, one of which must have signed the package.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the model; by default as the package says.")] = None,
) -> None:
    """Copy a package into the repository as a new version."""
    from delivery.package.signing_keys import read_signing_key
    from launch.quiet_start import import_tensorflow

    signing_key = read_signing_key(key) if key else None
    import_tensorflow()
    published = repository_at(repository).publish(model, key=signing_key, keyring=trust or None, name=name)
    typer.echo(f"{published.path}  {published.name} {published.version}")


@app.command()
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(help="That is there.")],
    to: Alias,
    repository: Repository = DEFAULT,
    reason: Reason = None,
) -> None:
    """Point an alias to a version. `phalanx release` does that after its gates."""
    repository_at(repository).promote(name, version, to, reason=reason)
    typer.echo(f"{to} of {name} is {version}")


@app.command()
def rollback(name: Name, to: Alias, repository: Repository = DEFAULT, reason: Reason = None) -> None:
    """Point an alias to where it pointed before."""
    version = repository_at(repository).rollback(name, to, reason=reason)
    typer.echo(f"{to} of {name} is {version} again")


@app.command()
def prune(
    name: Name,
    keep: Annotated[int, typer.Option("--keep", help="Newest versions that stay.")],
    repository: Repository = DEFAULT,
) -> None:
    """Delete old versions, but none that an alias points to or would be rolled back to."""
    deleted = repository_at(repository).prune(name, keep)
    typer.echo(f"deleted {', '.join(map(str, deleted)) or 'nothing'}")


@app.command()
def pull(
    name: Name,
    repository: Annotated[str, typer.Option("--repository", help="Of a bucket, as s3://BUCKET/PLACE.")],
    to: Annotated[Path, typer.Option("--to", help="Folder of the repository that servers follow.")] = Path(DEFAULT),
    trust: Annotated[
        list[Path] | None, typer.Option("--trust", help="Public keys, one of which must have signed each version.")
    ] = None,
    every: Annotated[float | None, typer.Option("--every", min=1, help="Seconds; goes on until it is ended.")] = None,
) -> None:
    """Bring the versions that aliases point to, and the newest, from a bucket into a folder, verified."""
    import time

    from launch.exit_code import RequestError
    from launch.quiet_start import import_tensorflow

    if "://" not in repository:
        raise RequestError(f"--repository {repository} is a folder, which servers follow themselves: give a bucket")
    import_tensorflow()
    from delivery.package.verification import PackageRefused
    from delivery.repository.bucket_repository import BucketRepository

    bucket = BucketRepository(repository)
    while True:
        try:
            brought = bucket.pull(name, to, trust or None)
        except (OSError, PackageRefused) as error:
            if every is None:
                raise
            typer.echo(f"not brought: {error}", err=True)  # what is there stays, and is served
            brought = []
        if brought or every is None:
            typer.echo(f"brought {', '.join(map(str, brought)) or 'nothing new'} to {to / name}")
        if every is None:
            return
        time.sleep(every)
