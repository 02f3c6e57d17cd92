"""`phalanx export RUN --to litert|web`: shrunken models of a run, and a page that runs one in a browser."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import typer

from launch.exit_code import ExitCode, RequestError
from launch.run_config import RunConfig

if TYPE_CHECKING:
    from delivery.web.page_runtime import PageRuntime

TARGETS = ("saved_model", "litert", "web")
RUNTIMES = ("litert", "tfjs")
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
    "runtime": typer.Option("--runtime", help="What runs the model in the page: litert (the default) or tfjs. [web]"),
    "litert_js": typer.Option("--litert-js", help="Folder of the npm package @litertjs/core. [web]"),
    "tf_js": typer.Option("--tf-js", help="Folder that make tfjs made. [web]"),
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
    runtime: str | None = None,
    tf_js: str | None = None,
) -> bool:
    """Carries an export out that is not of a SavedModel.

    Returns:
        Whether it was one.

    Raises:
        RequestError: there is no such target, or it does not go with the other options.
    """
    if to not in TARGETS:
        raise RequestError(f"--to {to} must be one of {', '.join(TARGETS)}: choose one of them")
    if to == "saved_model":
        given = {
            "--prune": prune,
            "--cluster": cluster,
            "--sparse": sparse,
            "--budget": budget,
            "--runtime": runtime,
            "--litert-js": litert_js,
            "--tf-js": tf_js,
        }
        if quantize or any(value is not None for value in given.values()):
            raise RequestError(f"--quantize, {', '.join(given)} are for --to litert or web: add it")
        return False
    page_runtime = _page_runtime(to, runtime, litert_js, tf_js)
    from delivery.shrink.litert import LITERT
    from delivery.shrink.request import request_of

    form = LITERT if page_runtime is None else page_runtime.form
    request = request_of(quantize, prune, fine_tune, budget, keep, cluster, sparse, form.quantizations)
    if form is LITERT:
        _check_installed()
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
        if page_runtime is None:
            shrunk = shrink_run(config, folder, request, train_pruned, typer.echo, command)
            page = None
        else:
            from delivery.web.web_export import check_page, export_smallest

            shrunk = shrink_run(config, folder, request, train_pruned, typer.echo, command, check_page, form)
            page = export_smallest(shrunk, folder, page_runtime)
    typer.echo(shrunk.table)
    typer.echo(f"written to {shrunk.folder}")
    if page is not None:
        typer.echo(f"page in {page}; see it with: python -m http.server --bind 127.0.0.1 --directory {page}")
    return True


def _page_runtime(to: str, runtime: str | None, litert_js: str | None, tf_js: str | None) -> PageRuntime | None:
    """What runs the model in the page; None: no page is asked for.

    Raises:
        RequestError: The options contradict each other.
        LiteRtJsMissing, TfJsMissing: The runtime is not installed.
    """
    if to != "web":
        if runtime is not None or tf_js is not None:
            raise RequestError(f"--runtime and --tf-js are for --to web, not {to}: leave them out")
        return None
    if runtime not in (None, *RUNTIMES):
        raise RequestError(f"--runtime {runtime} must be one of {', '.join(RUNTIMES)}: choose one of them")
    if runtime == "tfjs":
        if litert_js is not None:
            raise RequestError("--litert-js is for --runtime litert, not tfjs: say with --tf-js where TF.js is")
        from delivery.web.tf_js import find_tf_js

        return find_tf_js(tf_js)
    if tf_js is not None:
        raise RequestError("--tf-js is for --runtime tfjs: add it, or leave --tf-js out")
    from delivery.web.litert_js import LiteRtJs, find_litert_js

    return LiteRtJs(find_litert_js(litert_js))


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
