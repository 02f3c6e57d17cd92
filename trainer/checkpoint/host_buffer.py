"""The image of a checkpoint's file in memory, laid out once and filled again for every checkpoint.

The layout is that of safetensors (https://huggingface.co/docs/safetensors): eight bytes of header length, a JSON
header with each array's type, shape and place, then the arrays without gaps. Because the header depends only on names,
shapes and types, it is written once; a checkpoint then costs one copy of each array into its place here, one hash and
one write. The safetensors package would join the arrays and encode the header anew each time, and holds the GIL
while it does.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

_ALIGNMENT = 64  # of the first array in the file, in bytes: a cache line, and the widest vector register
_LONGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors reader

_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
    "C64": np.dtype(np.complex64),
    "F32": np.dtype(np.float32),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class ArraySpec:
    """What an array looks like: its shape, and its type as a numpy dtype or a name such as "bfloat16"."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def numpy_dtype(self) -> np.dtype:
        """The type as numpy knows it, the 16- and 8-bit floats of machine learning included."""
        if self.dtype == "bfloat16":  # numpy knows this name only once ml_dtypes has been imported
            return np.dtype(ml_dtypes.bfloat16)
        return np.dtype(self.dtype)

    @property
    def num_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.numpy_dtype.itemsize


def specs_of(arrays: Mapping[str, np.ndarray]) -> dict[str, ArraySpec]:
    """The specs of given arrays, by name."""
    return {name: ArraySpec(tuple(array.shape), array.dtype) for name, array in arrays.items()}


class HostBuffer:
    """One safetensors file in memory.

    Args:
        specs: shape and type of each array, by name.
        memory: uint8 array of `num_image_bytes(specs)` bytes to lie in, such as a part of a shared file; without it,
            memory of its own.

    Attributes:
        specs: as given; they must not change.
        views: for each name, an array that is the place of its values in the file: write values here.
        image: the whole file, as a read-only view of bytes.

    Raises:
        ValueError: a type cannot be stored (strings, objects).

    >>> buffer = HostBuffer({"model/dense/kernel": ArraySpec((2, 3), "float32"), "step": ArraySpec((), "int64")})
    >>> buffer.fill({"model/dense/kernel": np.ones((2, 3), np.float32), "step": np.int64(7)})
    >>> {name: array.sum().item() for name, array in read_image(buffer.image).items()}
    {'step': 7, 'model/dense/kernel': 6.0}
    """

    def __init__(self, specs: Mapping[str, ArraySpec], memory: np.ndarray | None = None) -> None:
        self.specs = specs
        header, places, num_bytes = _lay_out(self.specs)
        self._bytes = np.empty(len(header) + num_bytes, np.uint8) if memory is None else memory
        assert len(self._bytes) == len(header) + num_bytes, "memory has num_image_bytes"
        self._bytes[: len(header)] = np.frombuffer(header, np.uint8)
        self.views: dict[str, np.ndarray] = {}
        for name, offset in places.items():
            spec = self.specs[name]
            begin = len(header) + offset
            flat = self._bytes[begin : begin + spec.num_bytes].view(spec.numpy_dtype)
            self.views[name] = flat.reshape(spec.shape)
        self.image = self._bytes.data.toreadonly()
        self._index_json: dict[str, bytes] = {}

    def index_json(self, file: str) -> bytes:
        """The manifest's list of arrays, as JSON: name -> file, shape and type."""
        if file not in self._index_json:
            index = {
                name: {"file": file, "shape": list(spec.shape), "dtype": spec.numpy_dtype.name}
                for name, spec in self.specs.items()
            }
            self._index_json[file] = json.dumps(index).encode()
        return self._index_json[file]

    def fill(self, arrays: Mapping[str, Any]) -> None:
        """Copies values into their places.

        Raises:
            ValueError: the names, a shape or a type differ from the specs.
        """
        if arrays.keys() != self.views.keys():
            missing = sorted(self.views.keys() ^ arrays.keys())
            raise ValueError(f"the arrays differ from the layout of the checkpoint: {', '.join(missing[:5])}")
        for name, view in self.views.items():
            value = np.asarray(arrays[name])
            if value.shape != view.shape or value.dtype != view.dtype:
                raise ValueError(
                    f"{name} is {value.dtype.name}{list(value.shape)}, but the checkpoint is laid out for "
                    f"{view.dtype.name}{list(view.shape)}"
                )
            np.copyto(view, value)


def num_image_bytes(specs: Mapping[str, ArraySpec]) -> int:
    """Bytes of the file that a `HostBuffer` of these specs is."""
    header, _, num_bytes = _lay_out(specs)
    return len(header) + num_bytes


def read_image(image: Any) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, as views of its bytes.

    Args:
        image: the file's bytes, in anything that supports the buffer protocol.

    Raises:
        ValueError: the bytes are not a safetensors file; the message is the rule that they break.
    """
    data = np.frombuffer(image, np.uint8)
    length = int(data[:8].view(np.uint64)[0]) if len(data) >= 8 else 0
    if not 0 < length <= min(_LONGEST_HEADER, len(data) - 8):
        raise ValueError("it has no safetensors header")
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
    except ValueError:
        raise ValueError("its safetensors header is not JSON") from None
    values = data[8 + length :]
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype, shape = _DTYPES.get(entry["dtype"]), tuple(entry["shape"])
        if dtype is None:
            raise ValueError(f"{name} has the type {entry['dtype']}, which this version does not know")
        if not 0 <= begin <= end <= len(values) or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} does not lie within the file")
        arrays[name] = values[begin:end].view(dtype).reshape(shape)
    return arrays


def _lay_out(specs: Mapping[str, ArraySpec]) -> tuple[bytes, dict[str, int], int]:
    """The header, each array's offset behind it, and the bytes of all arrays.

    Wide types come first, so that every array is aligned to its own type although safetensors allows no gaps.
    """
    names = sorted(specs, key=lambda name: (-specs[name].numpy_dtype.itemsize, name))
    entries, places, offset = {}, {}, 0
    for name in names:
        spec = specs[name]
        code = _CODES.get(spec.numpy_dtype)
        if code is None:
            raise ValueError(f"{name} has the type {spec.numpy_dtype}, which a checkpoint cannot hold: store numbers")
        end = offset + spec.num_bytes
        entries[name] = {"dtype": code, "shape": list(spec.shape), "data_offsets": [offset, end]}
        places[name] = offset
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, places, offset
