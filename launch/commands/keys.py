"""`phalanx keys`: the keys that packages are signed with."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make and list the keys that packages are signed with.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Names the files: NAME.key and NAME.pub.json.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where they go.")] = Path("keys"),
    expires: Annotated[
        str | None, typer.Option("--expires", help="From when the key vouches for nothing, as 2027-01-31 (UTC).")
    ] = None,
) -> None:
    """Make a key pair: the private file for whoever signs, the public one for whoever verifies."""
    from delivery.package.signing_keys import PRIVATE_SUFFIX, PUBLIC_SUFFIX, create_key, parse_time

    key = create_key(folder, name, parse_time(expires) if expires else None)
    typer.echo(f"key {key.public.id}")
    typer.echo(f"  private  {folder / name}{PRIVATE_SUFFIX}  keep it secret: it signs")
    typer.echo(f"  public   {folder / name}{PUBLIC_SUFFIX}  for the keyrings of those who verify")


@app.command("list")
def show(
    keyring: Annotated[Path, typer.Argument(help="Folder of public keys, or one of them.")] = Path("keys"),
) -> None:
    """List the trusted keys of a keyring."""
    from datetime import datetime, timezone

    from delivery.package.signing_keys import read_keyring, time_text

    now = datetime.now(timezone.utc)
    for key in sorted(read_keyring(keyring).values(), key=lambda key: key.created):
        end = "never" if key.expires is None else time_text(key.expires)
        expired = "  expired" if key.is_expired(now) else ""
        typer.echo(f"{key.id}  {key.name}  created {time_text(key.created)}  expires {end}{expired}")
