"""Made-up input: bytes with a few of them changed, and messages of any protobuf type filled with anything."""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

_DEEPEST = 4
_KINDS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: st.sampled_from((0, 1, -1, 2, 2**31 - 1, -(2**31))),
    FieldDescriptor.CPPTYPE_INT64: st.sampled_from((0, 1, -1, 2, 2**31, 2**62, 2**63 - 1, -(2**63))),
    FieldDescriptor.CPPTYPE_UINT32: st.sampled_from((0, 1, 2, 2**32 - 1)),
    FieldDescriptor.CPPTYPE_UINT64: st.sampled_from((0, 1, 2, 2**64 - 1)),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}


def edited(content: bytes) -> st.SearchStrategy[bytes]:
    """Bytes with one to four places flipped, cut out, doubled or filled with others."""
    place = st.integers(0, max(len(content) - 1, 0))
    edit = st.tuples(
        st.sampled_from(("flip", "cut", "double", "insert", "end")), place, st.integers(1, 255), st.binary(max_size=8)
    )
    return st.lists(edit, min_size=1, max_size=4).map(lambda edits: _apply(content, edits))


def _apply(content: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    for what, place, number, some in edits:
        at = min(place, len(content))
        match what:
            case "flip" if at < len(content):
                content = content[:at] + bytes([content[at] ^ number]) + content[at + 1 :]
            case "cut":
                content = content[:at] + content[at + number :]
            case "double":
                content = content[:at] + content[at : at + number] + content[at:]
            case "insert":
                content = content[:at] + some + content[at:]
            case "end":
                content = content[:at]
    return content


def messages(kind: Any, words: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Messages of a generated class, each field there or not.

    Args:
        kind: The class.
        words: Texts that mean something to the reader; others are tried too.
    """
    return _fields(kind.DESCRIPTOR, words, 0).map(lambda fields: _filled(kind(), fields))


def _fields(kind: Descriptor, words: tuple[str, ...], depth: int) -> st.SearchStrategy[dict[str, Any]]:
    fields = [one for one in kind.fields if depth < _DEEPEST or one.message_type is None]
    if not fields:
        return st.just({})
    return st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda one: one.name).flatmap(
        lambda chosen: st.fixed_dictionaries({one.name: _values(one, words, depth) for one in chosen})
    )


def _values(one: FieldDescriptor, words: tuple[str, ...], depth: int) -> st.SearchStrategy[Any]:
    value = _value(one, words, depth)
    return st.lists(value, max_size=3) if one.is_repeated else value


def _value(one: FieldDescriptor, words: tuple[str, ...], depth: int) -> st.SearchStrategy[Any]:
    if one.message_type is not None:
        return _fields(one.message_type, words, depth + 1)
    if one.enum_type is not None:
        return st.sampled_from([*(value.number for value in one.enum_type.values), 999])
    if one.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        return _KINDS[one.cpp_type]
    if one.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=16)
    return st.one_of(st.sampled_from(words), st.text(st.characters(exclude_categories=("Cs",)), max_size=8))


def _filled(message: Any, fields: dict[str, Any]) -> Any:
    for name, value in fields.items():
        one = message.DESCRIPTOR.fields_by_name[name]
        if one.message_type is not None and one.message_type.GetOptions().map_entry:
            for entry in value:
                _put(getattr(message, name), one.message_type, entry)
        elif one.is_repeated:
            for item in value:
                if one.message_type is not None:
                    _filled(getattr(message, name).add(), item)
                else:
                    getattr(message, name).append(item)
        elif one.message_type is not None:
            getattr(message, name).SetInParent()
            _filled(getattr(message, name), value)
        else:
            setattr(message, name, value)
    return message


def _put(into: Any, entry: Descriptor, fields: dict[str, Any]) -> None:
    key = fields.get("key", entry.fields_by_name["key"].default_value)
    if entry.fields_by_name["value"].message_type is not None:
        _filled(into[key], fields.get("value", {}))
    else:
        into[key] = fields.get("value", entry.fields_by_name["value"].default_value)
