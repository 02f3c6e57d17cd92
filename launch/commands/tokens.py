"""`phalanx tokens`: the clients that `phalanx serve --clients FILE` lets in."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make, list and revoke the tokens of those who ask a server.", no_args_is_help=True)

File = Annotated[Path, typer.Option("--file", help="File of the clients; it holds no token, only hashes.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Of the client; one that exists gets a new token.")],
    file: File = Path("clients.json"),
    requests_per_s: Annotated[
        float | None, typer.Option("--requests-per-s", help="Most requests a second. [no limit]")
    ] = None,
) -> None:
    """Print a new token, which is kept nowhere. A running server takes it within a second."""
    from delivery.serving.clients import create_token

    typer.echo(create_token(file, name, requests_per_s))


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="Of the client.")], file: File = Path("clients.json")) -> None:
    """Let a client in no more."""
    from delivery.serving.clients import revoke_token

    revoke_token(file, name)
    typer.echo(f"{name} is let in no more")


@app.command("list")
def show(file: File = Path("clients.json")) -> None:
    """List the clients of a file."""
    from delivery.serving.clients import read_clients

    for client in read_clients(file).values():
        limit = "no limit" if client.requests_per_s is None else f"{client.requests_per_s:g} requests/s"
        typer.echo(f"{client.name}  {limit}")
