"""The page with LiteRT.js beside that with TF.js: sizes and milliseconds a sample in headless Chromium.

python -m benchmarks.browser [--quick] [--json FILE] [--run RUN]

Trains configs/mnist.yaml (or takes a run of an image classifier), writes the page with either runtime and several
quantisations, and opens them in turn, in one browser. Each page answers 64 held-out samples when it opens, one at a
time, the first of them included; a figure is the median over the openings. Needs `make browser` and `make tfjs`.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from benchmarks.shrink import phalanx
from tests.delivery.web.chromium import Page, browser, served

PAGES = {
    "LiteRT.js float32": ["--quantize", "float32"],
    "TF.js float32": ["--quantize", "float32", "--runtime", "tfjs"],
    "LiteRT.js dynamic": ["--quantize", "dynamic"],
    "TF.js dynamic": ["--quantize", "dynamic", "--runtime", "tfjs"],
    "LiteRT.js int8": ["--quantize", "int8"],
}
QUICK = 2
OPENINGS = 9


def main() -> None:
    """Measures, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: float32 alone, opened three times")
    parser.add_argument("--json", type=Path, help="result file to write")
    parser.add_argument("--run", type=Path, help="a finished run, instead of training one")
    arguments = parser.parse_args()
    typed = [word for word in sys.argv[1:] if arguments.run is None or word not in ("--run", str(arguments.run))]
    machine = describe_machine(["python", "-m", "benchmarks.browser", *typed])
    print_machine(machine)
    pages = dict(list(PAGES.items())[:QUICK] if arguments.quick else PAGES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = arguments.run or folder / "mnist"
        if arguments.run is None:
            phalanx("train", "configs/mnist.yaml", f"run.dir={folder}", "export.enabled=false")
        figures = {}
        for index, (page, options) in enumerate(pages.items()):
            phalanx("export", str(run), "--to", "web", *options)
            shutil.copytree(run / "export" / "web", folder / "pages" / str(index))
            figures[page] = sizes(folder / "pages" / str(index))
        with browser(folder / "profile") as page, served(folder / "pages") as address:
            machine["browser"] = page.send("Browser.getVersion")["product"]
            opened: dict[str, list[dict[str, float]]] = {page: [] for page in pages}
            for _ in range(3 if arguments.quick else OPENINGS):
                for index, name in enumerate(pages):
                    opened[name].append(answered(page, f"{address}{index}/"))
    for name, answers in opened.items():
        figures[name] |= {fact: statistics.median(one[fact] for one in answers) for fact in answers[0]}
    print(f"\n{'':<20}{'model':>10}{'zlib':>10}{'runtime':>11}{'zlib':>10}{'equal':>7}{'ms':>8}")
    for name, one in figures.items():
        sized = "".join(f"{one[key]:>{width},}" for key, width in zip(SIZES, (10, 10, 11, 10), strict=True))
        print(f"{name:<20}{sized}{one['equal']:>7.0f}{one['milliseconds']:>8.3f}")
    lite, tfjs = (figures[name] for name in list(pages)[:QUICK])
    targets = [
        target_line("browser_equal_classes", min(one["equal"] / one["compared"] for one in figures.values()), ">=1.0"),
        target_line("browser_litert_to_tfjs_ms", lite["milliseconds"] / tfjs["milliseconds"], "<=1.0"),
    ]
    print("", *targets, sep="\n")
    if arguments.json:
        write_result(arguments.json, machine, {"pages": figures}, targets)


SIZES = ("model_bytes", "model_compressed_bytes", "runtime_bytes", "runtime_compressed_bytes")


def sizes(page: Path) -> dict[str, Any]:
    """Bytes of the model and of the runtime's files, as they are and after zlib."""
    model = page / "model.tflite"
    models = [model] if model.is_file() else sorted((page / "model").iterdir())
    runtime = sorted(path for path in (page / "runtime").rglob("*") if path.is_file())
    contents = [[path.read_bytes() for path in paths] for paths in (models, runtime)]
    found = [
        (sum(map(len, parts)), sum(len(zlib.compress(part, 9)) for part in parts)) for parts in contents
    ]  # fmt: skip
    return dict(zip(SIZES, found[0] + found[1], strict=True))


def answered(page: Page, address: str) -> dict[str, float]:
    """What a page says of itself once it is ready."""
    page.send("Page.navigate", url=address)
    page.wait_for(lambda page: page.evaluate("document.body?.dataset.state ?? 'loading'") != "loading")
    facts = page.evaluate("({...document.body.dataset})")
    assert facts["state"] == "ready", page.evaluate("document.body.innerText")
    return {name: float(facts[name]) for name in ("equal", "compared", "difference", "milliseconds")}


if __name__ == "__main__":
    main()
