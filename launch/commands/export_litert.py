"""`phalanx export RUN --to litert|web`: shrunken models of a run, and a page that runs one in a browser."""

import subprocess
import sys
from typing import Any

import typer

from launch.exit_code import ExitCode, RequestError
from launch.run_config import RunConfig

TARGETS = ("saved_model", "litert", "web")
LITERT_OPTIONS: dict[str, Any] = {
    "quantize": typer.Option(
        "--quantize", help="float32, float16, dynamic, int8 or int4; may be given several times. [litert, web]"
    ),
    "prune": typer.Option("--prune", help="Share of the hidden units to take out, as in 0.5. [litert, web]"),
    "cluster": typer.Option("--cluster", help="Values that the weights of a tensor may have, as in 16. [litert, web]"),
    "sparse": typer.Option("--sparse", help="How many of neighbouring weights are kept, as in 2:4. [litert, web]"),
    "fine_tune": typer.Option("--fine-tune", help="Epochs of training after each change. [litert, web]"),
    "budget": typer.Option("--budget", help="Look for the smallest model of at most so many bytes, as in 2MB."),
    "keep": typer.Option("--keep", help="Share of the accuracy that a model must keep. [litert, web]"),
    "litert_js": typer.Option("--litert-js", help="Folder of the npm package @litertjs/core. [web]"),
}


class FineTuningFailed(Exception):
    """The run that fine-tunes a pruned model did not come to its end. The message is one sentence for the user."""


def export_to(
    to: str,
    run: str,
    quantize: list[str],
    prune: float | None,
    fine_tune: float,
    budget: str | None,
    keep: float,
    litert_js: str | None,
    cluster: int | None = None,
    sparse: str | None = None,
) -> bool:
    """Carries an export out that is not of a SavedModel.

    Returns:
        Whether it was one.

    Raises:
        RequestError: there is no such target.
    """
    if to not in TARGETS:
        raise RequestError(f"--to {to} must be one of {', '.join(TARGETS)}: choose one of them")
    if to == "saved_model":
        given = {
            "--prune": prune,
            "--cluster": cluster,
            "--sparse": sparse,
            "--budget": budget,
            "--litert-js": litert_js,
        }
        if quantize or any(value is not None for value in given.values()):
            raise RequestError(f"--quantize, {', '.join(given)} are for --to litert or web: add it")
        return False
    from delivery.shrink.request import request_of

    request = request_of(quantize, prune, fine_tune, budget, keep, cluster, sparse)
    _check_installed()
    modules = None
    if to == "web":
        from delivery.web.litert_js import find_litert_js

        modules = find_litert_js(litert_js)
    from cluster.run_lock import RunLock
    from launch.config import load_config
    from launch.quiet_start import import_tensorflow
    from launch.run_lookup import run_named

    folder = run_named(run)
    config = load_config(folder.config)
    with RunLock(folder.path, sys.argv):
        import_tensorflow()
        from delivery.shrink.shrink import shrink_run

        command = ["phalanx", *sys.argv[1:]]
        if modules is None:
            shrunk = shrink_run(config, folder, request, train_pruned, typer.echo, command)
            page = None
        else:
            from delivery.web.web_export import check_page, export_smallest

            shrunk = shrink_run(config, folder, request, train_pruned, typer.echo, command, check_page)
            page = export_smallest(shrunk, folder, modules)
    typer.echo(shrunk.table)
    typer.echo(f"written to {shrunk.folder}")
    if page is not None:
        typer.echo(f"page in {page}; see it with: python -m http.server --bind 127.0.0.1 --directory {page}")
    return True


def train_pruned(config: RunConfig) -> None:
    """Carries out the fine-tuning as `phalanx train` would, on whatever the config's cluster is.

    Raises:
        FineTuningFailed: it did not come to its end.
        KeyboardInterrupt: it was stopped.
    """
    from launch.config import write_config

    folder = config.run.folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f"{folder.name}.yaml")
    path.write_text(write_config(config), encoding="utf-8")
    program = "import sys; from launch.cli import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, "train", str(path)], check=False)
    if done.returncode == ExitCode.STOPPED:
        raise KeyboardInterrupt
    if done.returncode != 0:
        raise FineTuningFailed(
            f"the fine-tuning in {folder} ended with exit code {done.returncode}: see what it printed above, or "
            f"{folder / 'logs'}"
        )


def _check_installed() -> None:
    from importlib.util import find_spec

    for package in ("ai_edge_litert", "ai_edge_quantizer"):
        if find_spec(package) is None:
            raise RequestError(
                f"--to litert needs {package.replace('_', '-')}, which is not installed: "
                "install phalanx[delivery] on Python 3.11 or later"
            )
