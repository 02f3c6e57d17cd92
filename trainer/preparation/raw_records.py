"""TFRecord files of tf.train.Example: records pass as they are, once their checksums have been looked at."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from trainer.config.data_streams import RecordFeature
from trainer.data.checks import DataError
from trainer.data.example_message import Example
from trainer.data.image_faults import is_image
from trainer.data.record_format import FOOTER_BYTES, HEADER_BYTES, payload_length, payload_of
from trainer.data.record_index import damaged_header
from trainer.preparation.formats import Record, Survey
from trainer.preparation.raw_files import listed, unchanged
from trainer.preparation.request import Chunk, Contents, Request

NEEDS_SURVEY = False
_CHANGE = "copy the file again from its origin, or leave such records out with --skip-damaged"


def chunks(request: Request) -> list[Chunk]:
    """A chunk a file, since only what stands before a record says where it begins. See `RawFormat`."""
    return [Chunk(files=(file,)) for file in listed(request.source)]


def survey(request: Request, chunk: Chunk) -> Survey:
    """Not needed."""
    return {}


def contents(request: Request, chunks: Sequence[Chunk], surveys: Sequence[Survey]) -> Contents:
    """What the first sound record holds.

    Raises:
        DataError: There is none, or it is no tf.train.Example.
    """
    unknown = Contents(features={"unknown": RecordFeature(kind="integer")})
    first = next((one for chunk in chunks for one in read(request, chunk, unknown) if isinstance(one, Record)), None)
    if first is None:
        raise DataError(request.source, "", "the files hold no sound record", "write records, or correct RAW")
    try:
        held = Example.FromString(first.payload).features.feature
    except DecodeError as error:
        rule = "its records are no serialised tf.train.Example"
        raise DataError(chunks[0].files[0].path, "record 0", rule, "write such records") from error
    features = {name: _declared(held[name]) for name in sorted(held) if held[name].WhichOneof("kind")}
    if request.target is not None and request.target not in features:
        rule = f"it has no feature {request.target!r}; it has {', '.join(map(repr, features))}"
        raise DataError(chunks[0].files[0].path, "record 0", rule, "correct --target")
    target = request.target or ("label" if "label" in features else None)
    return Contents(features=features, target=target)


def read(request: Request, chunk: Chunk, contents: Contents) -> Iterator[Record | DataError]:
    """Reads all records. What follows a damaged header cannot be found, and is left out with it."""
    (file,) = chunk.files
    with unchanged(file) as path:
        for number, payload in enumerate(_payloads(path, file.size)):
            yield payload if isinstance(payload, DataError) else Record(file.name, number, payload)


def _payloads(path: Path, size: int) -> Iterator[bytes | DataError]:
    number = offset = 0
    with path.open("rb") as file:
        while offset < size:
            header = file.read(HEADER_BYTES)
            if len(header) == HEADER_BYTES:
                length = payload_length(header)
                if length is None:
                    yield damaged_header(path, number, offset, header)
                    return
                rest = file.read(length + FOOTER_BYTES) if offset + length < size else b""
            if len(header) < HEADER_BYTES or len(rest) < length + FOOTER_BYTES:
                yield DataError(path, f"record {number}", f"the file ends in the middle of it, at byte {size}", _CHANGE)
                return
            payload = payload_of(header + rest)
            rule = f"the checksum of its {length} bytes does not match: it is damaged"
            yield DataError(path, f"record {number}", rule, _CHANGE) if payload is None else payload
            number, offset = number + 1, offset + HEADER_BYTES + length + FOOTER_BYTES


def _declared(feature: Any) -> RecordFeature:
    kind = feature.WhichOneof("kind")
    values = getattr(feature, kind).value
    if kind == "bytes_list":
        first = values[0] if values else b""
        if is_image(first):
            return RecordFeature(kind="image")
        return RecordFeature(kind="raw", shape=(max(1, len(first)),))
    shape = () if len(values) == 1 else (max(1, len(values)),)
    return RecordFeature(kind="integer" if kind == "int64_list" else "float", shape=shape)
