"""Finds the two functions of a SavedModel that save and restore its variables: the only ones that may touch files.

They are told by what they are, never by their names. The graph's `saver_def` names the placeholder of the path and the
two calls; each function must be called there and nowhere else, must be made of the saver's operations only, and must
take every path that it hands to an operation on files from that placeholder. Then files are touched only where the
loader asks for it, with the path that the loader gives: a constant path, a second caller or a signature that leads to
the saver ends the exemption, and the operations in it are refused as anywhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from delivery.package.op_list import SAVER_OPS

_CALLS = ("StatefulPartitionedCall", "PartitionedCall")
_DT_STRING = 7
_PART = (b".part", b"_temp/part")
_REMOTE = b"^s3://.*"


def saver_functions(meta_graph: Any) -> frozenset[str]:
    """The names of the exempted functions of a MetaGraphDef; none unless everything is as the saver writes it."""
    saver = meta_graph.saver_def
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    library = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    if len(nodes) != len(meta_graph.graph_def.node) or len(library) != len(meta_graph.graph_def.library.function):
        return frozenset()  # of two with one name nobody knows which is run
    filename = node_of(saver.filename_tensor_name)
    save, restore = node_of(saver.save_tensor_name), saver.restore_op_name
    placeholder = nodes.get(filename)
    if len({filename, save, restore}) != 3 or placeholder is None or placeholder.op != "Placeholder":
        return frozenset()
    own = {filename, save, restore}
    if any(own & set(map(node_of, node.input)) for node in nodes.values() if node.name not in (save, restore)):
        return frozenset()
    if own & set(_named_by_signatures(meta_graph)):
        return frozenset()
    mentions = _mentions(meta_graph)
    found = set()
    for call, is_safe in ((save, _only_saves), (restore, _only_restores)):
        node = nodes.get(call)
        if node is None or node.op not in _CALLS or not node.input or node.input[0] not in (filename, f"{filename}:0"):
            return frozenset()
        if own & set(map(node_of, node.input[1:])):
            return frozenset()
        name = node.attr["f"].func.name if "f" in node.attr else ""
        function = library.get(name)
        if function is None or mentions[name] != 1 or not is_safe(function):
            return frozenset()
        found.add(name)
    return frozenset(found)


def node_of(tensor: str) -> str:
    """The node that a tensor or control input comes from.

    >>> node_of("a:0"), node_of("^b"), node_of("c")
    ('a', 'b', 'c')
    """
    return tensor.lstrip("^").partition(":")[0]


def named_functions(node: Any) -> Iterator[str]:
    """The functions that a node names in its attributes."""
    for value in node.attr.values():
        yield from _functions_of(value)


def _functions_of(value: Any) -> Iterator[str]:
    kind = value.WhichOneof("value")
    called = [value.func] if kind == "func" else value.list.func if kind == "list" else ()
    for function in called:
        yield function.name
        for inner in function.attr.values():
            yield from _functions_of(inner)


def _mentions(meta_graph: Any) -> Counter[str]:
    """How often each function is named anywhere: by a node, as an operation, in the object graph, as a gradient."""
    library = meta_graph.graph_def.library
    mentions: Counter[str] = Counter()
    for nodes in [meta_graph.graph_def.node, *(function.node_def for function in library.function)]:
        for node in nodes:
            mentions[node.op] += 1
            mentions.update(named_functions(node))
    for gradient in library.gradient:
        mentions.update((gradient.function_name, gradient.gradient_func))
    for gradient in library.registered_gradients:
        mentions.update((gradient.gradient_func,))
    for function in library.function:
        for value in function.attr.values():
            mentions.update(_functions_of(value))
    objects = meta_graph.object_graph_def
    mentions.update(list(objects.concrete_functions))
    for saved in objects.nodes:
        mentions.update(saved.function.concrete_functions)
        mentions.update((saved.bare_concrete_function.concrete_function_name,))
    return mentions


def _named_by_signatures(meta_graph: Any) -> Iterator[str]:
    for signature in meta_graph.signature_def.values():
        for tensors in (signature.inputs, signature.outputs, signature.defaults):
            for info in tensors.values():
                yield node_of(getattr(info, "name", ""))
    for collection in meta_graph.collection_def.values():
        yield from map(node_of, collection.node_list.value)


def _only_restores(function: Any) -> bool:
    """Whether every file that is read is the one of the function's first argument."""
    nodes, prefix = _body(function)
    if prefix is None:
        return False
    restores = [node for node in nodes.values() if node.op == "RestoreV2"]
    writes = any(node.op in ("SaveV2", "MergeV2Checkpoints", "ShardedFilename") for node in nodes.values())
    return bool(restores) and not writes and all(_inputs(node, nodes)[:1] == [prefix] for node in restores)


def _only_saves(function: Any) -> bool:
    """Whether every file that is written is the one of the function's first argument, by way of its parts."""
    nodes, prefix = _body(function)
    if prefix is None or any(node.op == "RestoreV2" for node in nodes.values()):
        return False
    merges = [node for node in nodes.values() if node.op == "MergeV2Checkpoints"]
    saves = [node for node in nodes.values() if node.op == "SaveV2"]
    if not merges or not saves or not all(_is_part(node, 0, nodes, prefix) for node in saves):
        return False
    for merge in merges:
        inputs = _inputs(merge, nodes)
        packed = nodes.get(inputs[0]) if len(inputs) == 2 else None
        if packed is None or packed.op != "Pack" or inputs[1] != prefix:
            return False
        if not all(_is_part(packed, index, nodes, prefix) for index in range(len(_inputs(packed, nodes)))):
            return False
    return all(_is_part_name(node, nodes, prefix) for node in nodes.values() if node.op == "ShardedFilename")


def _body(function: Any) -> tuple[dict[str, Any], str | None]:
    """The nodes of a function by name, and its first argument; None where it is no saver's function."""
    nodes = {node.name: node for node in function.node_def}
    arguments = function.signature.input_arg
    names = {argument.name for argument in arguments}
    if (
        len(nodes) != len(function.node_def)
        or len(names) != len(arguments)
        or names & set(nodes)
        or not arguments
        or arguments[0].type != _DT_STRING
        or any(node.op not in SAVER_OPS for node in nodes.values())
    ):
        return nodes, None
    return nodes, arguments[0].name


def _inputs(node: Any, nodes: Mapping[str, Any]) -> list[str]:
    """What a node of a function takes, control inputs left out."""
    return [node_of(text) for text in node.input if not text.startswith("^")]


def _is_part(node: Any, index: int, nodes: Mapping[str, Any], prefix: str) -> bool:
    inputs = _inputs(node, nodes)
    source = nodes.get(inputs[index]) if index < len(inputs) else None
    return source is not None and source.op == "ShardedFilename" and _is_part_name(source, nodes, prefix)


def _is_part_name(node: Any, nodes: Mapping[str, Any], prefix: str) -> bool:
    """Whether a ShardedFilename begins with the function's argument and goes on with the saver's own ending."""
    inputs = _inputs(node, nodes)
    joined = nodes.get(inputs[0]) if inputs else None
    if joined is None or joined.op != "StringJoin" or joined.attr["separator"].s:
        return False
    parts = _inputs(joined, nodes)
    choice = nodes.get(parts[1]) if len(parts) == 2 and parts[0] == prefix else None
    if choice is None or choice.op != "Select":
        return False
    chosen = [nodes.get(name) for name in _inputs(choice, nodes)]
    if len(chosen) != 3 or any(source is None for source in chosen):
        return False
    match, *endings = chosen
    assert match is not None
    return (
        match.op == "StaticRegexFullMatch"
        and _inputs(match, nodes) == [prefix]
        and match.attr["pattern"].s == _REMOTE
        and all(
            ending is not None and ending.op == "Const" and list(ending.attr["value"].tensor.string_val) == [text]
            for ending, text in zip(endings, _PART, strict=True)
        )
    )
