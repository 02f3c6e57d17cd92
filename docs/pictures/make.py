"""Makes the pictures of the documentation from real runs: `python docs/pictures/make.py [NAME ...]`.

The names are terminal, report, data and notebook. It needs Chromium (`make browser`). The pictures lie in
docs/assets; the runs are thrown away.
"""

import base64
import html
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "docs" / "assets"
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402

from tests.delivery.web.chromium import browser  # noqa: E402
from tests.launch.supervised_runs import last_step, pid_of_rank, started, wait_until  # noqa: E402

KILLED = ["train", "configs/mnist.yaml", "cluster.workers=2", "train.epochs=100", "run.name=mnist_2"]
COLUMNS = 118
_LINE, _CHARACTER = 19, 7.25  # pixels


@contextmanager
def place() -> Iterator[Path]:
    """A folder with the configs, in which the commands are given."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "configs").symlink_to(ROOT / "configs")
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(ROOT)


def killed_run() -> tuple[str, list[str]]:
    """Trains with two workers and kills one: what was typed there, and what the terminal showed."""
    run = Path("runs/mnist_2")
    with started(*KILLED, PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="2", PYTHONUNBUFFERED="1") as process:
        wait_until(lambda: last_step(run) >= 5000, process)
        pid = pid_of_rank(run, 1, 1)
        os.kill(pid, signal.SIGKILL)
        shown = process.communicate()[0]
        assert process.returncode == 0, shown
    return f"kill -9 {pid}", shown.splitlines()


def terminal(typed: str, shown: list[str]) -> None:
    """The lines around the kill; of those that only say how far the run is, a few."""
    told = next(number for number, line in enumerate(shown) if "SIGKILL" in line)
    kept = [f"$ phalanx {' '.join(KILLED)}", *shown[:2], "...", *shown[told - 2 : told]]
    kept += [f"                                                        # here, in another terminal: {typed}"]
    rest = shown[told:]
    sentences = [number for number, line in enumerate(rest) if "step" not in line[:9]]
    near = [line for number, line in enumerate(rest) if number in sentences or number < 4]
    kept += near if len(near) < 16 else [*near[:8], "...", *near[-7:]]
    draw_terminal([line[:COLUMNS] for line in kept], ASSETS / "killed-worker.svg")


def draw_terminal(lines: list[str], path: Path) -> None:
    """Lines of a terminal as a drawing in the colours of the page."""
    width, height = 24 + COLUMNS * _CHARACTER, 20 + _LINE * len(lines)
    texts = []
    for number, line in enumerate(lines):
        kind = "typed" if line.startswith("$") else "told" if re.search("SIGKILL|joins|took|kill -9", line) else "shown"
        y = 24 + _LINE * number
        texts.append(f'<text class="{kind}" x="12" y="{y}" xml:space="preserve">{html.escape(line)}</text>')
    style = (
        ".phalanx-terminal { font: 12px ui-monospace, Menlo, Consolas, 'Liberation Mono', monospace; color: #333; }"
        "@media (prefers-color-scheme: dark) { .phalanx-terminal { color: #ddd; } }"
        ".phalanx-terminal text { fill: currentColor; white-space: pre; }"
        ".phalanx-terminal .typed { font-weight: 600; }"
        ".phalanx-terminal .told { fill: var(--held-out, #e0722f); }"
    )
    box = f'viewBox="0 0 {width:.0f} {height}" role="img" class="phalanx-terminal"'
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>'
        f"<style>{style}</style>"
        f'<rect width="100%" height="100%" rx="6" fill="currentColor" fill-opacity=".06"/>{"".join(texts)}</svg>\n'
    )


def photograph(page: Path, picture: Path, height: int, heading: str | None = None, width: int = 1180) -> None:
    """A part of a page, in few colours: its top, or what is below a heading."""
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile), width, 900) as shown:
        shown.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        shown.send("Emulation.setScrollbarsHidden", hidden=True)
        shown.send("Page.navigate", url=page.resolve().as_uri())
        shown.wait_for(lambda page: page.evaluate("document.readyState") == "complete")
        find = "[...document.querySelectorAll('h2')].find((one) => one.textContent === '%s').getBoundingClientRect().y"
        top = shown.evaluate(find % heading) - 24 if heading else 0
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        data = shown.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(picture, optimize=True)


def notebook() -> None:
    """The output of the first cell of docs/notebook.md, from a real kernel."""
    import nbformat
    from nbclient import NotebookClient

    from tests.docs.blocks import blocks_of

    cells = [nbformat.v4.new_code_cell(one.text) for one in blocks_of(ROOT / "docs/notebook.md") if one.is_executed]
    book = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": "."}}).execute()
    first, *others = [cell["outputs"][0]["data"] for cell in book.cells[:1]] + [
        output["data"] for cell in book.cells[1:] for output in cell["outputs"] if "data" in output
    ]
    page = first["text/html"]
    drawing = page[page.index("<svg") : page.index("</svg>") + len("</svg>")]
    (ASSETS / "notebook.svg").write_text(drawing + "\n")
    print(re.sub("<svg.*</svg>", "(curves)", page))
    print(*(output["text/plain"] for output in others), sep="\n")


def main(wanted: list[str]) -> None:
    """Makes what is wanted; everything without a name."""
    wanted = wanted or ["terminal", "report", "data", "notebook"]
    command = [sys.executable, "-c", "from launch.cli import main; main()"]
    os.environ["PYTHONPATH"] = str(ROOT)
    with place():
        if {"terminal", "report"} & set(wanted):
            typed, shown = killed_run()
            print("\n".join(shown))
            if "terminal" in wanted:
                terminal(typed, shown)
            if "report" in wanted:
                photograph(Path("runs/mnist_2/report.html"), ASSETS / "report.png", 720)
                photograph(Path("runs/mnist_2/report.html"), ASSETS / "report-time.png", 430, "Wall time")
        if "data" in wanted:
            subprocess.run([*command, "data", "inspect", "configs/flights_tabular.yaml"], check=True)
            photograph(Path("runs/flights_tabular/data_inspection.html"), ASSETS / "data-page.png", 900)
        if "notebook" in wanted:
            notebook()


if __name__ == "__main__":
    main(sys.argv[1:])
