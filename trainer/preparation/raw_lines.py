"""Files of text, a record a line: its bytes in UTF-8 and the line end, as tokens, with zeros up to one length.

A line of more than T + 1 tokens becomes several records, each of which begins with the last token of the one before it.
Lines without anything but blanks are none.

Shape legend: T context.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trainer.config.data_streams import RecordFeature
from trainer.data.checks import DataError
from trainer.data.record_writer import encode_example
from trainer.preparation.formats import Record, Survey
from trainer.preparation.raw_files import cut, listed, unchanged
from trainer.preparation.request import Chunk, Contents, Request

NEEDS_SURVEY = False
TOKENS = "tokens"
VOCABULARY = 256
_CHANGE = "correct it, or leave such lines out with --skip-damaged"


def chunks(request: Request) -> list[Chunk]:
    """Cuts the files anywhere: a line belongs to the chunk in which it begins. See `RawFormat`."""
    return cut(listed(request.source), request.chunk_bytes)


def survey(request: Request, chunk: Chunk) -> Survey:
    """Not needed."""
    return {}


def contents(request: Request, chunks: Sequence[Chunk], surveys: Sequence[Survey]) -> Contents:
    """Tokens [T + 1]."""
    tokens = RecordFeature(kind="integer", shape=(request.context + 1,), num_values=VOCABULARY)
    return Contents(features={TOKENS: tokens}, num_classes=VOCABULARY)


def read(request: Request, chunk: Chunk, contents: Contents) -> Iterator[Record | DataError]:
    """Reads the lines that begin in the chunk."""
    (file,) = chunk.files
    with unchanged(file) as path:
        for offset, line in _lines(path, chunk.start, chunk.stop):
            rule = _fault(line)
            if rule is not None:
                yield DataError(file.path, f"line at byte {offset}", rule, _CHANGE)
                continue
            for begin, tokens in _windows(line + b"\n", request.context):
                yield Record(file.name, offset + begin, encode_example({TOKENS: tokens}))


def _lines(path: Path, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """The byte at which each line begins, and the line without its end."""
    with path.open("rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()  # belongs to the chunk before, or is the end of a line there
        offset = file.tell()
        while offset < stop and (line := file.readline()):
            if line.strip():
                yield offset, line.rstrip(b"\r\n")
            offset += len(line)


def _fault(line: bytes) -> str | None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"its byte {error.start} is not utf-8"
    return f"its byte {line.index(0)} is NUL, so it is no text" if 0 in line else None


def _windows(line: bytes, context: int) -> Iterator[tuple[int, np.ndarray]]:
    """Where in the line each record begins, and its tokens, int64 [T + 1]."""
    for begin in range(0, max(1, len(line) - 1), context):
        tokens = np.zeros(context + 1, np.int64)
        piece = np.frombuffer(line[begin : begin + context + 1], np.uint8)
        tokens[: len(piece)] = piece
        yield begin, tokens
