"""`phalanx schema`: the JSON schema of a config, with which an editor completes and checks the YAML."""

import typer


def schema() -> None:
    """Print the JSON schema of a config file, for editors.

    Save it with `phalanx schema > phalanx.schema.json`, and begin the config with
    `# yaml-language-server: $schema=phalanx.schema.json`.
    """
    import json

    from launch.config_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
