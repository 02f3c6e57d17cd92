"""Writes the folder of the page: model, runtime, samples.

Shape legend: N samples, H height, W width.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np

from delivery.shrink.artefact import Artefact
from delivery.shrink.model_form import place
from delivery.shrink.reference import Reference
from delivery.shrink.search import best_of
from delivery.shrink.shrink import Shrunk
from delivery.web.drawing import figure_extent
from delivery.web.page_runtime import PageRuntime
from trainer.run_folder import RunFolder
from trainer.tasks.classification import Classification

FOLDER = "web"
NUM_SAMPLES = 64
_PAGE = Path(__file__).parent / "page"


class PageRefused(ValueError):
    """The model cannot be shown on the page. The message is one sentence for the user."""


@dataclass(frozen=True)
class ShownModel:
    """What the page tells of the model.

    Attributes:
        run: Name of the run.
        step: Steps that it was trained.
        artefact: In the form that the page's runtime takes; passed its gates.
        answers: Of that model to the first `NUM_SAMPLES` held-out samples, in Python, [N, classes].
    """

    run: str
    step: int
    artefact: Artefact
    answers: np.ndarray


def check_page(reference: Reference) -> tuple[str, tuple[int, ...]]:
    """Makes sure that the model classifies one image.

    Returns:
        The input's name and the image's shape, [H, W, channels].

    Raises:
        PageRefused: It does not.
    """
    features = reference.task.input_features
    name, feature = next(iter(features.items()))
    shape = (*feature.shape, 1) if len(feature.shape) == 2 else tuple(feature.shape)
    is_image = len(features) == 1 and len(shape) == 3 and shape[-1] in (1, 3) and feature.dtype.startswith("float")
    if not is_image or not isinstance(reference.task, Classification):
        raise PageRefused(
            "--to web shows a classifier of images, one a sample, and this run's model takes "
            f"{', '.join(f'{key} {list(one.shape)} {one.dtype}' for key, one in features.items())}: use --to litert"
        )
    return name, shape


def export_page(reference: Reference, shown: ShownModel, runtime: PageRuntime, folder: Path) -> Path:
    """Writes `folder`: whole, or not at all; what was there before is replaced.

    Args:
        reference: The model that the artefact was made from.
        shown: The artefact and its answers.
        runtime: Of the artefact's form.
        folder: `export/web` of the run.

    Returns:
        The folder.

    Raises:
        PageRefused: The model does not classify images.
        OSError: The folder cannot be written.
    """
    name, shape = check_page(reference)
    unfinished = folder.with_name(f".unfinished-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        for file in ("page.css", "page.js"):
            shutil.copyfile(_PAGE / file, unfinished / file)
        (unfinished / "index.html").write_text(_html(runtime.imports), encoding="utf-8")
        assert shown.artefact.path is not None, "only artefacts that passed come here"
        place(shown.artefact.path, unfinished / runtime.model)
        shutil.copyfile(_PAGE / runtime.module, unfinished / "runtime.js")
        (unfinished / "runtime").mkdir()
        runtime.copy(unfinished / "runtime")
        model = _model_facts(reference, shown, name, shape) | {"runtime": runtime.name, "model": runtime.file}
        (unfinished / "model.json").write_text(json.dumps(model), encoding="utf-8")
        samples = _sample_facts(reference, shown, name)
        (unfinished / "samples.json").write_text(json.dumps(samples), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def export_smallest(shrunk: Shrunk, run: RunFolder, runtime: PageRuntime) -> Path:
    """Writes the page of the smallest model that a shrinking accepted, to `export/web` of the run.

    Raises:
        OSError: The folder cannot be written.
    """
    artefact = shrunk.chosen or best_of(shrunk.artefacts, None)
    assert artefact is not None and artefact.outputs is not None, "a shrinking that accepts nothing raises"
    reference = shrunk.reference
    shown = ShownModel(run.path.resolve().name, reference.step, artefact, artefact.outputs[:NUM_SAMPLES])
    return export_page(reference, shown, runtime, run.exports / FOLDER)


def _html(imports: dict[str, str]) -> str:
    """The page, whose policy lets no script run but its own files and the import map."""
    text = json.dumps({"imports": imports})
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    script = f'<script type="importmap">{text}</script>' if imports else ""
    template = Template((_PAGE / "index.html").read_text(encoding="utf-8"))
    return template.substitute(import_map=script, import_map_hash=f" 'sha256-{digest}'" if imports else "")


def _model_facts(reference: Reference, shown: ShownModel, name: str, shape: tuple[int, ...]) -> dict[str, object]:
    artefact = shown.artefact
    num_classes = reference.outputs.shape[-1]
    return {
        "run": shown.run,
        "step": shown.step,
        "artefact": artefact.name,
        "bytes": artefact.size,
        "metric": artefact.quality.name if artefact.quality else None,
        "value": artefact.quality.value if artefact.quality else None,
        "input": {"name": name, "shape": [1, *reference.task.input_features[name].shape], "image": list(shape)},
        "classes": list(reference.schema.class_names or map(str, range(num_classes))),
        "extent": figure_extent(reference.representative[name]),
    }


def _sample_facts(reference: Reference, shown: ShownModel, name: str) -> dict[str, object]:
    """Held-out images, whose float32 values the page gets to the bit, with Python's answers."""
    images = reference.samples[name][: len(shown.answers)].astype("<f4")
    return {
        "count": len(images),
        "images": base64.b64encode(images.tobytes()).decode(),
        "outputs": shown.answers.astype(float).round(6).tolist(),
    }
