"""`phalanx models`: what `model.name` can be."""

from typing import Annotated

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
) -> None:
    """List the models with their parameters, sizes, options and the tasks that fit."""
    import json

    from launch.model_list import describe_models, list_models

    listed = list_models()
    typer.echo(json.dumps([model.as_json() for model in listed], indent=2) if as_json else describe_models(listed))
