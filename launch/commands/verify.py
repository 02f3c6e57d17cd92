"""`phalanx verify MODEL --key K`."""

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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Check a package before it is used: signature, files, every operation. Nothing of it is loaded."""
    from launch.quiet_start import import_tensorflow

    import_tensorflow()
    from delivery.package import verification

    try:
        package = verification.verify(model, key)
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
