"""YAML as configs use it: one value a key, every key with its line, and `1e-3` a number.

PyYAML follows YAML 1.1, in which `1e-3` is text, `on` is a truth value and `010` is eight. Configs follow YAML 1.2.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Location = tuple[str | int, ...]


@dataclass
class Document:
    """What a config file says.

    Attributes:
        values: the sections.
        lines: the line, from 1, on which each key stands.
        problems: one sentence for each thing that is not allowed.
    """

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (PyYAML's own name and type)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


_RULES = [
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9][0-9_]*$", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("tag:yaml.org,2002:merge", r"^(?:<<)$", ["<"]),
]
for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _RULES:
        _class.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def _represent_list(dumper: _Dumper, data: Any) -> yaml.Node:
    """Lists on one line, as people write them."""
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Dumper.add_representer(list, _represent_list)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node).replace("_", ""))


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read_document(text: str, source: str) -> Document:
    """Read a config file.

    Args:
        text: the file's text.
        source: what the file is called in messages.
    """
    document = Document()
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return document
        if not isinstance(node, yaml.MappingNode):
            document.problems.append(
                f"{source} must hold sections such as model:, data: and train:, not a single value"
            )
            return document
        document.values = _Reader(loader, document, source).mapping(node, ())
    except yaml.MarkedYAMLError as error:
        document.problems.append(f"{source}{_where(error)} is not YAML: {_reason(error)}")
    except yaml.YAMLError as error:
        document.problems.append(f"{source} is not YAML: {str(error).splitlines()[0]}")
    finally:
        loader.dispose()
    return document


def parse_value(text: str) -> Any:
    """Read one value, as it stands on the right of a key.

    Raises:
        ValueError: the text is not a YAML value.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(_reason(error)) from None
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def write_yaml(values: dict[str, Any]) -> str:
    """Write values so that `read_document` gives the same ones back; keys keep their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def _where(error: yaml.MarkedYAMLError) -> str:
    return f", line {error.problem_mark.line + 1}," if error.problem_mark else ""


def _reason(error: yaml.MarkedYAMLError) -> str:
    return " ".join(part for part in (error.context, error.problem) if part).replace("\n", " ")


class _Reader:
    """Turns YAML nodes into values, and notes lines and duplicate keys on the way."""

    def __init__(self, loader: _Loader, document: Document, source: str) -> None:
        self.loader, self.document, self.source = loader, document, source
        self.open_nodes: set[int] = set()

    def mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        self._check_keys(node, location)
        self.loader.flatten_mapping(node)
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(self.loader.construct_object(key_node, deep=True))
            self.document.lines[(*location, key)] = key_node.start_mark.line + 1
            values[key] = self.value(value_node, (*location, key))
        return values

    def value(self, node: yaml.Node, location: Location) -> Any:
        if id(node) in self.open_nodes:
            raise yaml.MarkedYAMLError(None, None, f"{dotted(location)} contains itself", node.start_mark)
        self.open_nodes.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, location)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]
            return self.loader.construct_object(node, deep=True)
        finally:
            self.open_nodes.discard(id(node))

    def _check_keys(self, node: yaml.MappingNode, location: Location) -> None:
        first: dict[str, int] = {}
        for key_node, _ in node.value:
            line, key = key_node.start_mark.line + 1, str(key_node.value)
            if key in first and key_node.tag != "tag:yaml.org,2002:merge":
                self.document.problems.append(
                    f"{dotted((*location, key))} is given twice in {self.source}, on lines {first[key]} and {line}: "
                    "remove one of them"
                )
            first.setdefault(key, line)


def dotted(location: Location) -> str:
    """The name of a setting as it is written on the command line: `train.steps`, `model.hidden[1]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
