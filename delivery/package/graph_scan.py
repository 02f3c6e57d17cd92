"""Looks at every operation of a SavedModel without loading it: only its protobuf is read.

All graphs and all functions in their libraries are gone through, whether anything calls them or not; so a nested
function needs no way of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delivery.package.op_list import ALLOWED_OPS
from delivery.package.refusal import PackageRefused, shown
from delivery.package.saver_functions import named_functions, saver_functions

SAVED_MODEL = "saved_model.pb"
_COLLECTIONS = frozenset({"saved_model_main_op", "saved_model_train_op"})
_OBJECTS = frozenset({"_generic_user_object", "trackable_list_wrapper", "trackable_dict_wrapper", "signature_map"})
_REGISTERED = frozenset({"", "tf.StaticHashTable", "tf.TrackableConstant"})
_KINDS = frozenset({"user_object", "function", "bare_concrete_function", "variable", "constant", "resource"})
_MOST_CONSTANT = 1 << 28  # elements that a constant may claim to have


@dataclass(frozen=True)
class Signature:
    """What a signature takes and gives: TensorFlow's numbers of the types by name."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True)
class ScannedModel:
    """What the scan of a SavedModel found.

    Attributes:
        operations: The kinds of operation in it, sorted.
        num_nodes: Operations in all graphs and functions.
        signatures: By name, the loader's own left out.
    """

    operations: tuple[str, ...]
    num_nodes: int
    signatures: Mapping[str, Signature]


def scan_saved_model(content: bytes) -> ScannedModel:
    """Checks every operation in the bytes of `saved_model.pb` against the list of those allowed.

    Raises:
        PackageRefused: An operation is not on the list, a function is missing or there twice, or the file holds
            something else that no export of a model for serving needs.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        model = saved_model_pb2.SavedModel.FromString(content)
    except (DecodeError, RecursionError):
        raise _refused("damaged", "is no SavedModel: it cannot be read") from None
    if not model.meta_graphs:
        raise _refused("damaged", "holds no graph")
    operations: set[str] = set()
    num_nodes = 0
    signatures: dict[str, Signature] = {}
    for meta_graph in model.meta_graphs:
        if meta_graph.graph_def.library.function or meta_graph.graph_def.node:
            num_nodes += _scan_graph(meta_graph, operations)
        _check_rest(meta_graph)
        for name, signature in meta_graph.signature_def.items():
            if not name.startswith("__saved_model"):
                sides = [
                    {key: info.dtype for key, info in side.items()} for side in (signature.inputs, signature.outputs)
                ]
                signatures[name] = Signature(*sides)
    return ScannedModel(tuple(sorted(operations)), num_nodes, signatures)


def _scan_graph(meta_graph: Any, operations: set[str]) -> int:
    graph = meta_graph.graph_def
    exempted = saver_functions(meta_graph)
    functions = [function.signature.name for function in graph.library.function]
    known = set(functions)
    if len(known) != len(functions):
        twice = next(name for name in functions if functions.count(name) > 1)
        raise _refused("function", f"holds the function {shown(twice)} twice")
    num_nodes = 0
    places = [
        ("the graph", graph.node),
        *((f"function {shown(f.signature.name)}", f.node_def) for f in graph.library.function),
    ]
    for (place, nodes), name in zip(places, ["", *functions], strict=True):
        for node in nodes:
            num_nodes += 1
            operations.add(node.op)
            if name not in exempted and node.op not in ALLOWED_OPS:
                raise _refused(
                    "operation",
                    f"holds the operation {shown(node.op)} in {place}, node {shown(node.name)}, which is not on the "
                    "list of operations that a served model may have",
                )
            for called in named_functions(node):
                if called not in known:
                    raise _refused(
                        "function",
                        f"calls the function {shown(called)} in {place}, node {shown(node.name)}, which it lacks",
                    )
            if node.op == "Const":
                _check_constant(node, place)
    return num_nodes


def _check_constant(node: Any, place: str) -> None:
    """A few bytes may claim to be a tensor that fills the memory."""
    elements = 1
    for dimension in node.attr["value"].tensor.tensor_shape.dim:
        elements *= max(dimension.size, 0)
        if elements > _MOST_CONSTANT:
            raise _refused("size", f"holds a constant of too many elements in {place}, node {shown(node.name)}")


def _check_rest(meta_graph: Any) -> None:
    """What a loader might act on beside the operations."""
    if meta_graph.asset_file_def:
        raise _refused("asset", "names asset files, which a package does not hold")
    for name, collection in meta_graph.collection_def.items():
        if name not in _COLLECTIONS or collection.WhichOneof("kind") not in ("node_list", None):
            raise _refused("collection", f"holds the collection {shown(name)}, which serving does not need")
    for number, saved in enumerate(meta_graph.object_graph_def.nodes):
        kind = saved.WhichOneof("kind")
        if kind not in _KINDS or saved.registered_name not in _REGISTERED or saved.registered_saver:
            what = saved.registered_saver or saved.registered_name or str(kind)
            raise _refused("object", f"holds the object {number} of kind {shown(what)}, which serving does not need")
        if kind == "user_object" and (saved.user_object.identifier not in _OBJECTS or saved.user_object.metadata):
            raise _refused(
                "object",
                f"holds the object {number} of class {shown(saved.user_object.identifier)}, "
                "which serving does not need",
            )


def _refused(rule: str, sentence: str) -> PackageRefused:
    return PackageRefused(rule, SAVED_MODEL, f"{SAVED_MODEL} {sentence}")
