"""The training sample that a package carries: raw features and predictions by name.

Shape legend: M samples.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from delivery.drift.columns import columns_of
from delivery.drift.scores import ColumnReference
from delivery.package.training_sample import TRAINING_SAMPLE

_FEWEST = 50


class SamplesUnusable(ValueError):
    """A file of samples is not there or not what it should be. The message is one sentence for the user."""


def read_samples(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name from an .npz file, [M, ...] each; predictions are called `prediction:NAME`.

    Raises:
        SamplesUnusable: The file cannot be read, or its arrays differ in length.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise SamplesUnusable(f"there is no file {path}: check the path") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error)
        raise SamplesUnusable(f"{path} cannot be read ({reason}): save it with numpy.savez, text as bytes") from None
    lengths = {name: len(values) if values.ndim else 0 for name, values in arrays.items()}
    if not arrays or len(set(lengths.values())) > 1 or not all(lengths.values()):
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items()) or "none"
        raise SamplesUnusable(f"{path} must hold arrays of one length, a sample a row ({told}): save it anew")
    return arrays


def read_training_sample(model: Path) -> dict[str, ColumnReference]:
    """The training columns of an exported model.

    Args:
        model: Folder of the SavedModel.

    Raises:
        SamplesUnusable: It carries no training sample, or too small a one.
    """
    path = model / TRAINING_SAMPLE
    if not path.is_file():
        raise SamplesUnusable(f"{model} carries no {TRAINING_SAMPLE}: export it anew with phalanx export")
    return references_of(read_samples(path), str(path))


def references_of(arrays: dict[str, np.ndarray], name: str = "the training sample") -> dict[str, ColumnReference]:
    """The columns of training arrays, prepared.

    Raises:
        SamplesUnusable: There are too few samples to compare with.
    """
    columns = columns_of(arrays)
    num_samples = len(next(iter(columns.values()), ()))
    if num_samples < _FEWEST:
        raise SamplesUnusable(
            f"{name} has {num_samples} samples, and a comparison takes at least {_FEWEST}: export more"
        )
    return {column: ColumnReference(values) for column, values in columns.items()}
