"""TensorFlow.js, and the converter of its models: found, checked and copied; neither is part of Phalanx.

The converter asks for versions of packages that exclude the TensorFlow of this environment, and works with it all the
same. So it lies in a folder of its own, which only the converting process sees.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from delivery.web.page_runtime import PageRuntime
from delivery.web.tf_js_form import TfJsForm

VERSION = "4.22.0"
SCOPE = "@tensorflow"
PACKAGES = ("tfjs-core", "tfjs-converter", "tfjs-backend-wasm")
CONVERTER = "tensorflowjs"
ENVIRONMENT = "PHALANX_TF_JS"
CACHE = Path.home() / ".cache" / "phalanx" / "tfjs"
_INSTALL = "install it with make tfjs"

# WebAssembly on one thread, for processors with SIMD and without: threads need a server that isolates the page.
_WASM = ("tfjs-backend-wasm-simd.wasm", "tfjs-backend-wasm.wasm")


class TfJsMissing(ValueError):
    """Something that the runtime needs is not there. The message is one sentence for the user."""


@dataclass(frozen=True)
class TfJs(PageRuntime):
    """The runtime as the page takes it.

    Attributes:
        modules: The `node_modules` folder with the runtime.
        converter: The folder of Python packages with the converter.
        node: Node.js, which runs a model before a page shows it.
    """

    modules: Path
    converter: Path
    node: Path

    name = "TF.js"
    module = "tfjs.js"
    model = "model"
    file = "model/model.json"

    @property
    def form(self) -> TfJsForm:
        """Models that this Node.js runs first."""
        return TfJsForm(self.modules, self.converter, self.node)

    def copy(self, folder: Path) -> None:
        """Copies what the page loads: three scripts and the WebAssembly of two kinds of processor."""
        for package in PACKAGES:
            name = package.replace("tfjs-", "tf-")
            shutil.copyfile(self.modules / SCOPE / package / "dist" / f"{name}.es2017.min.js", folder / f"{name}.js")
        for name in _WASM:
            shutil.copyfile(self.modules / SCOPE / PACKAGES[-1] / "dist" / name, folder / name)


def find_tf_js(given: str | None = None) -> TfJs:
    """The runtime, its converter and Node.js.

    Args:
        given: A folder with `node_modules` and `converter`, as `make tfjs` makes it. None: the environment variable
            PHALANX_TF_JS, or the cache of `make tfjs`.

    Raises:
        TfJsMissing: Something is not there, or of another version.
    """
    place = Path(given or os.environ.get(ENVIRONMENT) or CACHE)
    modules, converter = place / "node_modules", place / "converter"
    elsewhere = f"{_INSTALL}, or say with --tf-js or {ENVIRONMENT} where it is"
    for package in PACKAGES:
        description = modules / SCOPE / package / "package.json"
        if not description.is_file():
            raise TfJsMissing(f"there is no {SCOPE}/{package} in {place}: {elsewhere}")
        found = json.loads(description.read_text(encoding="utf-8")).get("version")
        if found != VERSION:
            raise TfJsMissing(f"{SCOPE}/{package} in {place} is version {found}, the page needs {VERSION}: {_INSTALL}")
    if not (converter / f"{CONVERTER}-{VERSION}.dist-info").is_dir():
        raise TfJsMissing(f"there is no converter {CONVERTER} {VERSION} in {place}: {elsewhere}")
    node = shutil.which("node")
    if node is None:
        raise TfJsMissing(
            "--runtime tfjs runs each model in Node.js before a page shows it, and there is no node on the PATH: "
            "install Node.js 18 or later (apt-get install nodejs)"
        )
    return TfJs(modules, converter, Path(node))
