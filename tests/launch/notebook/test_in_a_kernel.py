"""The notebook of the documentation, cell by cell in a real kernel, and a run that is interrupted there."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.docs.blocks import ROOT, blocks_of
from trainer.observe.metrics_log import read_metrics

LIMIT_S = 120

TINY = """
tiny = {
    "model": {"name": "mlp", "hidden": [4]},
    "data": {"name": "synthetic", "shape": [6], "num_classes": 3, "num_samples": 64, "batch_size": 16},
    "train.log_every": 10, "train.steps_per_loop": 10, "train.deterministic": False,
    "observe.tensorboard": False, "export.enabled": False, "evaluate.every": None,
}
run = train(tiny, steps=1_000_000)
"""


class Notebook:
    """A kernel in a folder, and the cells that it has executed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._notebook = nbformat.v4.new_notebook()
        self.client = NotebookClient(
            self._notebook,
            timeout=LIMIT_S,
            kernel_name="python3",
            shutdown_kernel="immediate",
            resources={"metadata": {"path": str(folder)}},
        )

    def execute(self, source: str) -> list[Any]:
        """The outputs of a new cell."""
        self._notebook.cells.append(nbformat.v4.new_code_cell(source))
        return self.client.execute_cell(self._notebook.cells[-1], len(self._notebook.cells) - 1)["outputs"]

    def value(self, expression: str) -> Any:
        (output,) = self.execute(expression)
        return output["data"]["text/plain"]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "configs").mkdir()
    config = (ROOT / "configs" / "mnist.yaml").read_text()
    # Packages and TensorBoard are tested elsewhere, and take as long as the training.
    (folder / "configs" / "mnist.yaml").write_text(
        config + "\nexport: {enabled: false}\nobserve: {tensorboard: false}\n"
    )
    made = Notebook(folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")}
    with made.client.setup_kernel(env=environment):
        yield made


@pytest.mark.processes
def test_the_notebook_of_the_documentation(notebook: Notebook) -> None:
    cells = [block for block in blocks_of(ROOT / "docs" / "notebook.md") if block.is_executed]
    assert cells and all(cell.language == "python" for cell in cells)
    first, *others = [notebook.execute(cell.text) for cell in cells]
    # One output, drawn again: curves, and none of the lines that a terminal shows.
    (shown,) = first
    page = shown["data"]["text/html"]
    assert "<svg" in page and "finished, step 200 of 200" in page and "samples/s  data" not in page
    assert "done after step 200" in page
    assert all(output["output_type"] != "error" for outputs in others for output in outputs)
    assert [line["step"] for line in read_metrics(notebook.folder / "runs/mnist/metrics.jsonl")][-1] == 200


@pytest.mark.processes
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(notebook: Notebook) -> None:
    notebook.execute("from trainer import train")
    pid = int(notebook.value("__import__('os').getpid()"))
    metrics = notebook.folder / "runs/mlp/metrics.jsonl"

    def interrupt() -> None:
        end = time.monotonic() + LIMIT_S
        while len(read_metrics(metrics)) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(pid, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    (shown,) = notebook.execute(TINY)
    assert "stopped by SIGINT after step" in shown["data"]["text/html"]
    assert notebook.value("run.state") == "'stopped'"
    step = int(notebook.value("run.step"))
    assert 20 <= step < 1_000_000
    notebook.execute(f"again = train(resume=run, steps={step + 40})")
    notebook.execute(f"whole = train(tiny, {{'run.name': 'whole'}}, steps={step + 40})")
    curve = "[(line['step'], line['loss']) for line in {}.metrics]"
    assert notebook.value(f"{curve.format('again')} == {curve.format('whole')}") == "True"
    assert notebook.value("again.state, again.step") == f"('finished', {step + 40})"


@pytest.mark.processes
def test_an_error_is_the_sentence_of_the_command_line(notebook: Notebook) -> None:
    with pytest.raises(CellExecutionError) as error:
        notebook.execute("from trainer import train\ntrain('configs/mnist.yaml', stpes=200, accumulate=3)")
    outputs = notebook._notebook.cells[-1]["outputs"]
    (shown,) = [output for output in outputs if output["output_type"] == "error"]
    assert shown["traceback"] == [
        "phalanx: train.stpes is not a setting: did you mean train.steps?",
        "phalanx: train.accumulate=3 must divide data.batch_size=32: set data.batch_size to a multiple of 3",
    ]
    assert error.value.ename == "RunError"
