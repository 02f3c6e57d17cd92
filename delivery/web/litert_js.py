"""LiteRT.js, Google's WebAssembly runtime for LiteRT models: found, checked and copied; it is not part of Phalanx."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from delivery.shrink.litert import LITERT, LiteRt
from delivery.web.page_runtime import PageRuntime

VERSION = "2.5.3"
PACKAGE = "@litertjs/core"
UTILITIES = "@litertjs/wasm-utils"
ENVIRONMENT = "PHALANX_LITERT_JS"
CACHE = Path.home() / ".cache" / "phalanx" / "litert-js"
_INSTALL = f"install it with: npm install --ignore-scripts --prefix {CACHE} {PACKAGE}@{VERSION}"

# The one for processors with relaxed SIMD, and the one for all others; the page asks for neither threads nor WebGPU.
_RUNTIMES = ("litert_wasm_internal", "litert_wasm_compat_internal")


class LiteRtJsMissing(ValueError):
    """The runtime is not there. The message is one sentence for the user."""


def find_litert_js(given: str | None = None) -> Path:
    """The `node_modules` folder that holds the runtime.

    Args:
        given: A folder into which npm installed it, or its `node_modules`. None: the environment variable
            PHALANX_LITERT_JS, or the cache of `make browser`.

    Raises:
        LiteRtJsMissing: It is not there, or it is another version.
    """
    place = Path(given or os.environ.get(ENVIRONMENT) or CACHE)
    modules = next((at for at in (place / "node_modules", place) if (at / PACKAGE / "package.json").is_file()), None)
    if modules is None or not (modules / UTILITIES / "package.json").is_file():
        raise LiteRtJsMissing(
            f"there is no {PACKAGE} in {place}: {_INSTALL}, or say with --litert-js or {ENVIRONMENT} where it is"
        )
    found = json.loads((modules / PACKAGE / "package.json").read_text(encoding="utf-8")).get("version")
    if found != VERSION:
        raise LiteRtJsMissing(f"{PACKAGE} in {place} is version {found}, the page needs {VERSION}: {_INSTALL}")
    return modules


@dataclass(frozen=True)
class LiteRtJs(PageRuntime):
    """The runtime as the page takes it.

    Attributes:
        modules: From `find_litert_js`.
    """

    modules: Path
    name = "LiteRT.js"
    module = "litert.js"
    model = "model.tflite"
    file = "model.tflite"
    imports: ClassVar = {UTILITIES: "./runtime/wasm-utils.js"}

    @property
    def form(self) -> LiteRt:
        """The file that was gated, as it is."""
        return LITERT

    def copy(self, folder: Path) -> None:
        """Copies what the page loads: two modules and the WebAssembly of two kinds of processor."""
        shutil.copyfile(self.modules / PACKAGE / "dist" / "index.js", folder / "core.js")
        shutil.copyfile(self.modules / UTILITIES / "dist" / "index.js", folder / "wasm-utils.js")
        (folder / "wasm").mkdir()
        for name in _RUNTIMES:
            for suffix in (".js", ".wasm"):
                shutil.copyfile(
                    self.modules / PACKAGE / "wasm" / f"{name}{suffix}", folder / "wasm" / f"{name}{suffix}"
                )
