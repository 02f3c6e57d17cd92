"""A sample of what the model was trained on, and what it answered: what serving compares its requests with.

`assets.extra/training_sample.npz` holds the raw features of training samples under the names of the inputs, and the
answers under `prediction:<output>`.

Shape legend: B batch.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from delivery.package.refusal import PackageRefused, shown

TRAINING_SAMPLE = "assets.extra/training_sample.npz"
PREDICTION = "prediction:"
MOST_BYTES = 64 << 20
_MOST_ARRAYS = 2000
_KINDS = "biufSU"  # numpy's: truth values, integers, floats, strings; no objects, which would be pickles


def write_training_sample(path: Path, features: Mapping[str, np.ndarray], answers: Mapping[str, np.ndarray]) -> None:
    """Writes raw features by input name and answers by output name, [B, ...] each, B the same for all."""
    arrays = {**features, **{PREDICTION + name: values for name, values in answers.items()}}
    np.savez(path, **{name: _plain(values) for name, values in arrays.items()})  # type: ignore[arg-type]


def read_training_sample(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features and answers, by input and by output name; pickled objects are never read.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return split_answers(arrays)


def split_answers(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features by input name, and answers by output name, from arrays under the names that the file has."""
    answers = {name.removeprefix(PREDICTION): one for name, one in arrays.items() if name.startswith(PREDICTION)}
    return {name: one for name, one in arrays.items() if not name.startswith(PREDICTION)}, answers


def check_training_sample(content: bytes) -> None:
    """Makes sure that the file holds plain arrays of the size that it says, and nothing packed or pickled.

    Raises:
        PackageRefused: It does not.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) != len(names) or len(names) > _MOST_ARRAYS:
            raise _refused("holds two arrays of one name, or too many")
        if sum(member.file_size for member in members) > len(content):
            raise _refused("is packed, or says that it is larger than it is")
        for member in members:
            if not member.filename.endswith(".npy") or member.compress_type != zipfile.ZIP_STORED:
                raise _refused(f"holds {shown(member.filename)}, which is no plain array")
            _check_array(member.filename, archive.read(member))


def _check_array(name: str, content: bytes) -> None:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise _refused(f"holds {shown(name)} of an unknown version")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file, max_header_size=4096)
    if dtype.kind not in _KINDS or dtype.names or dtype.subdtype:
        raise _refused(f"holds {shown(name)} of type {shown(str(dtype))}, which is none of numbers or strings")
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise _refused(f"holds {shown(name)} of another size than it says")


def _plain(values: np.ndarray) -> np.ndarray:
    """Strings as numpy's own, because an array of Python objects could be read by unpickling only."""
    if values.dtype != object:
        return values
    return np.array([text.decode() if isinstance(text, bytes) else text for text in values.ravel()], str).reshape(
        values.shape
    )


def _refused(sentence: str) -> PackageRefused:
    return PackageRefused("training_sample", TRAINING_SAMPLE, f"{TRAINING_SAMPLE} {sentence}")
