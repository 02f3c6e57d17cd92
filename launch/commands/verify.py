"""`phalanx verify MODEL --key K [--openssf P]`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from launch.exit_code import ExitCode


def verify(
    model: Annotated[Path, typer.Argument(help="Package: the folder that holds saved_model.pb and manifest.json.")],
    key: Annotated[
        list[Path], typer.Option("--key", help="Public key, or a folder of them; may be given several times.")
    ],
    openssf: Annotated[
        Path | None,
        typer.Option("--openssf", help="Public EC key (PEM): the OpenSSF signature beside the package must be its."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Check a package before it is used: signature, files, every operation. Nothing of it is loaded."""
    from launch.quiet_start import import_tensorflow

    import_tensorflow()
    from delivery.package import verification
    from delivery.package.openssf import verify_openssf

    try:
        package = verification.verify(model, key)
        if openssf is not None:
            verify_openssf(model, openssf)
    except verification.PackageRefused as refusal:
        if not as_json:
            raise
        typer.echo(json.dumps({"ok": False, "rule": refusal.rule, "file": refusal.file, "reason": str(refusal)}))
        return ExitCode.FAILED
    if as_json:
        typer.echo(json.dumps(_document(package)))
    else:
        manifest = package.manifest
        assert package.key is not None
        typer.echo(f"{model} is {manifest.name} {manifest.version}, signed with {package.key.name} ({package.key.id})")
        typer.echo(f"  {len(manifest.files)} files, {package.size} bytes, {len(package.operations)} kinds of operation")
    return ExitCode.DONE


def _document(package: Any) -> dict[str, Any]:
    manifest = package.manifest
    return {
        "ok": True,
        "name": manifest.name,
        "version": manifest.version,
        "key": {"id": package.key.id, "name": package.key.name},
        "files": len(manifest.files),
        "bytes": package.size,
        "operations": list(package.operations),
        "signatures": sorted(package.signatures),
    }
