"""Texts as files of tokens, made once and mapped into memory.

They lie in a cache folder whose name is a hash of the texts and of the settings: other texts or settings make other
files, and the same ones find theirs whatever the folder of the texts is called.

Shape legend: T time (tokens).
"""

import bisect
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from trainer.data.checks import DataError
from trainer.data.tokenizer import (
    END_OF_DOCUMENT,
    ByteTokenizer,
    SubwordTokenizer,
    Tokenizer,
    load_subword,
    train_subword,
)

_FORMAT = "phalanx tokens 1"
_CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class Document:
    """A part of a text file that belongs to one split.

    Attributes:
        name: The file, relative to the folder of the texts.
        text: Its characters.
    """

    name: str
    text: str


@dataclass(frozen=True)
class TokenFile:
    """The tokens of a split, documents one after the other, each followed by the end of a document.

    Attributes:
        tokens: Mapped into memory, [T], of the smallest unsigned type that holds the vocabulary.
        names: The documents.
        starts: Position of each document's first token.
    """

    tokens: np.ndarray
    names: Sequence[str]
    starts: Sequence[int]

    def document_at(self, position: int) -> tuple[str, int]:
        """Gives the name of the document that a token lies in, and its position there."""
        number = bisect.bisect_right(self.starts, position) - 1
        return self.names[number], position - self.starts[number]


class TokenFiles:
    """The folder with the tokens of all splits and their tokenizer.

    Args:
        folder: Where such folders lie.
        key: What the tokens were made from, see `key_of`.
        subword: Subwords rather than bytes.
    """

    def __init__(self, folder: Path, key: str, subword: bool):
        self.path = folder / key
        self._subword = subword

    def ready(self) -> bool:
        """All files are there and have the content that they were written with."""
        try:
            manifest = self._manifest()
            return manifest["format"] == _FORMAT and all(
                _checksum(self.path / name) == checksum for name, checksum in manifest["files"].items()
            )
        except (OSError, ValueError, KeyError):
            return False

    def make(self, splits: Mapping[str, Iterable[Document]], texts: Iterable[str], vocabulary: int) -> None:
        """Trains the tokenizer and writes the tokens; the folder takes its name when all of it is written.

        Args:
            splits: The documents of each split by its name. Each is run through once.
            texts: What a subword tokenizer is trained on.
            vocabulary: The most tokens of a subword tokenizer.

        Raises:
            OSError: The disk is full or the folder not writable.
        """
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=self.path.parent))
        try:
            tokenizer = train_subword(texts, vocabulary) if self._subword else ByteTokenizer()
            if isinstance(tokenizer, SubwordTokenizer):
                tokenizer.save(temporary / "tokenizer.json")
            documents = {name: _write(temporary / name, tokenizer, parts) for name, parts in splits.items()}
            checksums = {path.name: _checksum(path) for path in sorted(temporary.iterdir())}
            manifest = {"format": _FORMAT, "documents": documents, "files": checksums}
            (temporary / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
            if self.path.exists() and not self.ready():
                shutil.rmtree(self.path)
            if not self.path.exists():
                os.rename(temporary, self.path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def tokenizer(self) -> Tokenizer:
        """Gives the tokenizer that made the tokens."""
        return load_subword(self.path / "tokenizer.json") if self._subword else ByteTokenizer()

    def open(self, split: str, vocabulary_size: int) -> TokenFile:
        """Maps the tokens of a split."""
        documents = self._manifest()["documents"][split]
        path = self.path / split
        dtype = _dtype(vocabulary_size)
        tokens = np.memmap(path, dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)
        return TokenFile(tokens, [name for name, _ in documents], [start for _, start in documents])

    def _manifest(self) -> dict:
        return json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))


def key_of(settings: Sequence[object], contents: Iterator[tuple[str, bytes]]) -> str:
    """Hashes settings, and names and contents of files."""
    digest = hashlib.blake2b(json.dumps([_FORMAT, *settings]).encode(), digest_size=16)
    for name, content in contents:
        digest.update(f"{len(name)} {name} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def not_stored(folder: Path, error: OSError) -> DataError:
    """Makes the error of a cache that could not be written."""
    rule = f"the tokens cannot be stored ({error.strerror})"
    return DataError(folder, "", rule, "make room there, or set PHALANX_CACHE_DIR to another folder")


def _write(path: Path, tokenizer: Tokenizer, documents: Iterable[Document]) -> list[tuple[str, int]]:
    starts, position = [], 0
    dtype = _dtype(tokenizer.vocabulary_size)
    with open(path, "wb") as file:
        for document in documents:
            tokens = np.append(tokenizer.encode(document.text), END_OF_DOCUMENT).astype(dtype)
            file.write(tokens.tobytes())
            starts.append((document.name, position))
            position += len(tokens)
    return starts


def _dtype(vocabulary_size: int) -> type[np.unsignedinteger]:
    return np.uint8 if vocabulary_size <= 2**8 else np.uint16 if vocabulary_size <= 2**16 else np.uint32


def _checksum(path: Path) -> int:
    checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum = google_crc32c.extend(checksum, chunk)
    return checksum
