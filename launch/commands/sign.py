"""`phalanx sign MODEL --key FILE`."""

from pathlib import Path
from typing import Annotated

import typer


def sign(
    model: Annotated[Path, typer.Argument(help="Package, as in runs/mnist/export/1.")],
    key: Annotated[Path, typer.Option("--key", help="Private key, as in keys/release.key.")],
) -> None:
    """Sign a package, or sign it anew with another key, after checking that it is whole and harmless."""
    from launch.quiet_start import import_tensorflow

    import_tensorflow()
    from delivery.package.sealing import sign as sign_package
    from delivery.package.signing_keys import read_signing_key

    manifest = sign_package(model, read_signing_key(key))
    typer.echo(f"{model} is signed as {manifest.name} {manifest.version} with the key {manifest.key}")
