"""From what XLA and the compiler of TPUs say to one sentence: the layer, the operation, and what to use instead."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

_UNSUPPORTED = re.compile(r"(\w+) \(No registered '\w+' OpKernel for \w+ devices[^{]*\{\{node ([^}]+)\}\}")
_NODE = re.compile(r"\{\{node ([^}]+)\}\}|op_name=\"([^\"]+)\"|%([\w./-]+) = ")
_FILE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')
_OUT_OF_MEMORY = re.compile(r"([\d.]+)([KMGT]?)\)?\s+exceeds available HBM \(?([\d.]+)([KMGT]?)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_OURS = Path(__file__).parents[2]
_LIBRARIES = ("/site-packages/", "/dist-packages/", f"{_OURS}/trainer/", f"{_OURS}/launch/")

_STRINGS = "encode text and categories in the data (a vocabulary on columns, a tokenizer on text), before the model"
_PYTHON = "write it with TensorFlow or keras.ops, or move it into the data pipeline, which runs on the host"
_SIZES = "keep every size fixed: multiply by a mask, use tf.where with three arguments, or tf.math.top_k"
_TABLES = "look up in the data, or use keras.layers.Embedding on numbers"

_INSTEAD = {
    "EagerPyFunc": _PYTHON,
    "PyFunc": _PYTHON,
    "PyFuncStateless": _PYTHON,
    "NumpyFunction": _PYTHON,
    "Unique": _SIZES,
    "UniqueV2": _SIZES,
    "UniqueWithCounts": _SIZES,
    "Where": _SIZES,
    "RaggedTensorToTensor": "pad the samples to one length in the data, and mask the padding",
    "RaggedRange": "pad the samples to one length in the data, and mask the padding",
    "SparseTensorDenseMatMul": "use a dense matrix, or an embedding of the indices",
    "DecodeJpeg": "decode images in the data pipeline, which runs on the host",
    "DecodePng": "decode images in the data pipeline, which runs on the host",
    "NonMaxSuppressionV3": "use tf.image.non_max_suppression_padded, which has one size of output",
    "Print": "use metrics of the task; a TPU cannot print",
    "PrintV2": "use metrics of the task; a TPU cannot print",
    "PrintFunction": "use metrics of the task; a TPU cannot print",
}
_INSTEAD_BY_PART = (
    ("String", _STRINGS),
    ("Regex", _STRINGS),
    ("LookupTable", _TABLES),
    ("HashTable", _TABLES),
    ("Ragged", "pad the samples to one length in the data, and mask the padding"),
    ("Sparse", "use a dense tensor"),
    ("Iterator", "read the data outside of the model"),
    ("Summary", "use metrics of the task; a TPU writes no files"),
)


class Refusal(NamedTuple):
    """Why a program cannot run on a TPU.

    Attributes:
        sentence: for the person.
        layer: at fault, where it is known.
        operation: TensorFlow's name of it.
        needed: bytes of HBM that would be needed, where there are too few.
    """

    sentence: str
    layer: str | None = None
    operation: str | None = None
    needed: int | None = None


def out_of_memory(message: str) -> int | None:
    """The bytes of HBM that a program needs at least and does not get; None for another message.

    >>> out_of_memory("the total memory required (51.56G) exceeds available HBM (15.75G)") // 2**30
    51
    """
    match = _OUT_OF_MEMORY.search(message)
    return int(float(match[1]) * _UNITS[match[2]]) if match else None


def refusal_of(message: str, layers: Collection[str]) -> Refusal:
    """What a message of XLA means.

    Args:
        message: as it was raised or returned.
        layers: names of the model's layers.
    """
    match = _UNSUPPORTED.search(message)
    if match:
        operation, node = match[1], match[2]
        layer = layer_of(node, layers)
        where = f"the layer {layer} uses" if layer else f"{_place(node)} uses"
        return Refusal(
            f"{where} {operation}{_source(message)}, which a TPU does not have: {instead_of(operation)}",
            layer,
            operation,
        )
    if (needed := out_of_memory(message)) is not None:
        return Refusal(f"it needs {needed / 2**30:.2f} GiB of HBM", needed=needed)
    node = next((next(filter(None, found.groups())) for found in _NODE.finditer(message)), "")
    layer = layer_of(node, layers)
    operation = node.rpartition("/")[2] or None
    where = f"the layer {layer}" if layer else _place(node) if node else "the step"
    if "C128" in message or "c128" in message or "complex128" in message:
        change = "use complex64, which has float32 parts"
    elif "must be a compile-time constant" in message or "dynamic" in message.lower() or "<=" in message:
        change = _SIZES
    else:
        change = "replace it by other operations, or move it into the data pipeline"
    return Refusal(
        f"{where}{_source(message)} is refused by the compiler ({_first(message)}): {change}", layer, operation
    )


def instead_of(operation: str) -> str:
    """What to use in place of an operation that a TPU does not have.

    >>> instead_of("StringSplitV2").partition(" (")[0]
    'encode text and categories in the data'
    """
    if operation in _INSTEAD:
        return _INSTEAD[operation]
    if operation in ("AsString", "DecodeRaw"):
        return _STRINGS
    return next((change for part, change in _INSTEAD_BY_PART if part in operation), "move it into the data pipeline")


def layer_of(node: str, layers: Collection[str]) -> str | None:
    """The innermost layer in the name of a node; a loop adds a number to the names that it repeats.

    >>> layer_of("while/gradient_tape/while/odd_1/Mul", ["odd", "hidden"])
    'odd'
    """
    for part in reversed(node.split("/")):
        for name in (part, re.sub(r"_\d+$", "", part)):
            if name in layers:
                return name
    return None


def _place(node: str) -> str:
    return f"the node {node}"


def _source(message: str) -> str:
    """Where in the user's own code the operation is made."""
    before = message.split("tf2xla conversion failed")[0]
    own = [found for found in _FILE.findall(before) if not any(part in f"/{found[0]}" for part in _LIBRARIES)]
    if not own or own[-1][2] == "<module>":
        return ""
    path, line, _ = own[-1]
    return f" ({path.rpartition('/')[2]}, line {line})"


def _first(message: str) -> str:
    text = re.sub(r"^Failed getting HLO text: '", "", message.strip())
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")[:300].rstrip(".")
