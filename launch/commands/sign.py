"""`phalanx sign MODEL --key FILE [--openssf FILE]`."""

from pathlib import Path
from typing import Annotated

import typer

from launch.exit_code import RequestError


def sign(
    model: Annotated[Path, typer.Argument(help="Package, as in runs/mnist/export/1.")],
    key: Annotated[Path | None, typer.Option("--key", help="Private key, as in keys/release.key.")] = None,
    openssf: Annotated[
        Path | None,
        typer.Option("--openssf", help="Private EC key (PEM): an OpenSSF signature beside the package as well."),
    ] = None,
) -> None:
    """Sign a package, or sign it anew with another key, after checking that it is whole and harmless."""
    if key is None and openssf is None:
        raise RequestError("there is no key to sign with: add --key FILE, or --openssf FILE")
    from launch.quiet_start import import_tensorflow

    import_tensorflow()
    from delivery.package.openssf import sign_openssf
    from delivery.package.sealing import sign as sign_package
    from delivery.package.signing_keys import read_signing_key
    from delivery.package.verification import check_package

    if key is not None:
        manifest = sign_package(model, read_signing_key(key))
        typer.echo(f"{model} is signed as {manifest.name} {manifest.version} with the key {manifest.key}")
    else:
        check_package(model)
    if openssf is not None:  # the last, for it covers the other one's file
        typer.echo(f"OpenSSF signature in {sign_openssf(model, openssf)}")
