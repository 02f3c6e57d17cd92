"""The `phalanx` command: registers the commands, turns errors into one sentence and an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from launch.commands import (
    check,
    data,
    drift,
    export,
    generate,
    keys,
    logs,
    models,
    profile,
    release,
    replay,
    report,
    repository,
    resume,
    schema,
    serve,
    sign,
    simulate,
    status,
    stop,
    tokens,
    tpu,
    train,
    verify,
)
from launch.exit_code import ExitCode, exit_code_of, explanation_of

DEBUG = "--debug"

app = typer.Typer(
    name="phalanx",
    help="Train TensorFlow models from one config file to a SavedModel.",
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def phalanx(
    context: typer.Context,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the stack trace of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Train TensorFlow models from one config file to a SavedModel."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"phalanx {installed('phalanx')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("train")(train.train)
app.command("resume")(resume.resume)
app.command("check")(check.check)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.command("stop")(stop.stop)
app.command("profile")(profile.profile)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("generate")(generate.generate)
app.command("drift")(drift.drift)
app.command("sign")(sign.sign)
app.command("verify")(verify.verify)
app.command("release")(release.release)
app.add_typer(keys.app, name="keys")
app.add_typer(repository.app, name="repository")
app.add_typer(tokens.app, name="tokens")
app.command("replay")(replay.replay)
app.command("simulate")(simulate.simulate)
app.command("serve")(serve.serve)
app.command("models")(models.models)
app.add_typer(data.app, name="data")
app.add_typer(tpu.app, name="tpu")
app.command("schema")(schema.schema)


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit code."""
    # Before anything imports TensorFlow or Keras: both read these once, at import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Accepted after the command too, where one adds it to a line that has just failed.
    debug = DEBUG in arguments
    arguments = [argument for argument in arguments if argument != DEBUG]
    try:
        return int(typer.main.get_command(app).main(arguments, prog_name="phalanx", standalone_mode=False) or 0)
    except TyperException as error:
        text = error.format_message()
        is_help = text.startswith("Usage:")  # of a group of commands of which none was named
        print(text if is_help else f"phalanx: {text} (see phalanx --help)", file=sys.stderr)
        return ExitCode.WRONG_REQUEST
    except (KeyboardInterrupt, Abort):
        return ExitCode.STOPPED
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            for sentence in explanation_of(error).splitlines():
                print(f"phalanx: {sentence}", file=sys.stderr)
        return exit_code_of(error)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))
