"""What a model is converted to, and the files that it then consists of.

Shape legend: N held-out samples.
"""

from __future__ import annotations

import shutil
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np


class ModelForm(ABC):
    """A format of models with the runtime that answers from it.

    Attributes:
        name: Of the folder under `export/` that holds models of this form.
        suffix: Of a model's file; or of its folder, where it is several files.
        quantizations: What `convert` makes, out of `delivery.shrink.request.QUANTIZATIONS`.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    quantizations: ClassVar[tuple[str, ...]]

    @abstractmethod
    def convert(self, work: Path, quantize: str, model: Path) -> None:
        """Writes `model` from what `Reference.save` wrote to `work`.

        Raises:
            ChildFailed: It cannot be converted.
        """

    @abstractmethod
    def answers(self, work: Path, model: Path) -> tuple[np.ndarray, np.ndarray]:
        """Outputs [N, ...] and seconds [N] of one call a sample, of those in `work`, on one thread of this CPU.

        Raises:
            ChildFailed: It cannot be run.
        """


def sizes_of(model: Path) -> tuple[int, int]:
    """Bytes of a model's file or files, as they are and each after zlib."""
    files = sorted(path for path in model.rglob("*") if path.is_file()) if model.is_dir() else [model]
    contents = [path.read_bytes() for path in files]
    return sum(map(len, contents)), sum(len(zlib.compress(content, 9)) for content in contents)


def place(model: Path, target: Path) -> None:
    """Copies a model to where it is looked for; what was there is replaced, and half a model is never there."""
    unfinished = target.with_name(f".{target.name}.new")
    remove(unfinished)
    if model.is_dir():
        shutil.copytree(model, unfinished)
        remove(target)
        unfinished.rename(target)
    else:
        shutil.copyfile(model, unfinished)
        unfinished.replace(target)


def remove(model: Path) -> None:
    """Removes a model's file or folder, if it is there."""
    if model.is_dir():
        shutil.rmtree(model)
    else:
        model.unlink(missing_ok=True)
