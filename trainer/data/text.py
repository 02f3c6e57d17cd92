"""A folder of text files, as windows of tokens for language modelling.

Shape legend: B batch, T context (tokens that a prediction may look back on).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.config.data_streams import TextData
from trainer.data.cache_folder import cache_folder
from trainer.data.checks import DataError
from trainer.data.held_out import Split
from trainer.data.masking import MaskedSource
from trainer.data.packing import PackedSource
from trainer.data.places import find_path
from trainer.data.source import Feature, Schema, SkippedRecords
from trainer.data.text_classes import TextClassSource
from trainer.data.token_files import Document, TokenFile, TokenFiles, key_of, not_stored
from trainer.data.tokenizer import DEFAULT_VOCABULARY, Tokenizer

TOKENS = "tokens"
IN_MEMORY_BYTES = 2**28
EMPTY_LINES = re.compile(r"\n[ \t]*\n\s*")


class TextSource:
    """Windows of T + 1 tokens, each beginning with the last token of the one before it.

    Attributes:
        tokenizer: What made the tokens, for showing what a model writes.
    """

    may_skip = False

    def __init__(self, file: TokenFile, tokenizer: Tokenizer, context: int, skipped: SkippedRecords):
        feature = Feature((context + 1,), "int32", num_values=tokenizer.vocabulary_size)
        num_windows = (len(file.tokens) - 1) // context
        self.schema = Schema({TOKENS: feature}, None, num_windows, tokenizer.vocabulary_size)
        self.tokenizer = tokenizer
        self.skipped = skipped
        self.failure: DataError | None = None
        self.in_memory = file.tokens.nbytes <= IN_MEMORY_BYTES
        self._file, self._context = file, context
        self._held: tf.Tensor | None = None

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads the windows at `index`, int64 [B]: "tokens", int32 [B, T + 1]."""
        index = tf.cast(index, tf.int64)
        positions = index[:, None] * self._context + tf.range(self._context + 1, dtype=tf.int64)
        if self.in_memory:
            tokens = tf.gather(self._tokens_in_memory(), positions)
        else:
            dtype = tf.as_dtype(self._file.tokens.dtype)
            tokens = tf.numpy_function(lambda at: self._file.tokens[at], [positions], dtype, stateful=False)
            tokens.set_shape(positions.shape)
        return {TOKENS: tf.cast(tokens, tf.int32)}

    def locate(self, index: int) -> str:
        """Names the file of a window and the position of its first token there."""
        name, position = self._file.document_at(index * self._context)
        return f"{name}, token {position}"

    def _tokens_in_memory(self) -> tf.Tensor:
        if self._held is None:
            # Outside of any graph that is being traced, or the tokens would become a constant of that graph.
            with tf.init_scope(), tf.device("CPU:0"):
                self._held = tf.constant(np.asarray(self._file.tokens))
        return self._held


def open_text(data: TextData, split: Split) -> TextSource | PackedSource | MaskedSource | TextClassSource:
    """Opens the windows of a split; the first time, trains the tokenizer and stores the tokens of all texts.

    Raises:
        DataError: A folder is missing, a file is empty or no text and may not be skipped, the texts are shorter than
            one window or too long for windows in memory, or the tokens cannot be stored.
    """
    skipped = SkippedRecords(data.skip_bad_records)
    texts = _Texts(find_path(data.path, "data.path"), data, skipped)
    held_out = texts
    if data.held_out_path is not None:
        held_out = _Texts(find_path(data.held_out_path, "data.held_out_path"), data, skipped)
    vocabulary = data.vocabulary or DEFAULT_VOCABULARY
    subword = data.tokenizer == "subword"
    fraction = None if data.held_out_path is not None else data.held_out_fraction
    settings = [data.tokenizer, vocabulary if subword else 0, fraction, data.encoding, *_versions(subword)]
    if data.documents != "file":
        settings.append(data.documents)
    contents = texts.contents() if fraction else _both(texts.contents(), held_out.contents())
    files = TokenFiles(cache_folder("text"), key_of(settings, contents), subword)
    if not files.ready():
        splits = {"train": texts.documents("train", fraction), "held_out": held_out.documents("held_out", fraction)}
        training = (document.text for document in texts.documents("train", fraction))
        try:
            files.make(splits, training, vocabulary)
        except OSError as error:
            raise not_stored(files.path.parent, error) from error
    tokenizer = files.tokenizer()
    file = files.open(split, tokenizer.vocabulary_size)
    if len(file.tokens) <= data.context:
        part = split.replace("_", "-")
        rule = f"the {part} part has {len(file.tokens)} tokens, less than a window of {data.context + 1}"
        raise DataError(data.path, "", rule, "lower data.context, or add text")
    if not (data.packing or data.masked or data.classes):
        return TextSource(file, tokenizer, data.context, skipped)
    if file.tokens.nbytes > IN_MEMORY_BYTES:
        setting = "packing" if data.packing else "masked" if data.masked else "classes"
        rule = f"data.{setting} keeps its windows in memory, and the tokens take {file.tokens.nbytes / 2**20:.0f} MiB"
        raise DataError(data.path, "", rule, f"use at most {IN_MEMORY_BYTES >> 20} MiB of them")
    if data.packing:
        return PackedSource(file, tokenizer, data.context + 1, skipped)
    if data.masked is not None:
        return MaskedSource(file, tokenizer, data.context, data.masked, skipped)
    return TextClassSource(file, tokenizer, data.context, data.classes, skipped)


class _Texts:
    """The text files of a folder, read one at a time."""

    def __init__(self, root: Path, data: TextData, skipped: SkippedRecords):
        self._root = root if root.is_dir() else root.parent
        paths = sorted(path for path in root.rglob(data.files) if path.is_file()) if root.is_dir() else [root]
        if not paths:
            rule = f"no file in it matches {data.files!r}"
            raise DataError(root, "", rule, "add texts, or correct data.path or data.files")
        self._encoding, self._by_paragraph = data.encoding, data.documents == "paragraph"
        self._paths = []
        for path in paths:
            try:
                self._text(path, _content(path))
                self._paths.append(path)
            except DataError as error:
                skipped.add(error)
        if not self._paths:
            raise DataError(root, "", "all of its texts were skipped", "correct them")

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Gives name and bytes of each file."""
        for path in self._paths:
            yield self._name(path), _content(path)

    def documents(self, split: Split, fraction: float | None) -> Iterator[Document]:
        """Gives the part of each file that belongs to a split, or its paragraphs: all of it if `fraction` is None.

        Held out is the end of each file, from the first line end after `1 - fraction` of it, if a line follows.
        """
        for path in self._paths:
            text = self._text(path, _content(path))
            if fraction is not None:
                cut = int(len(text) * (1 - fraction))
                line_end = text.find("\n", cut) + 1
                cut = line_end if 0 < line_end < len(text) else cut
                text = text[:cut] if split == "train" else text[cut:]
            parts = EMPTY_LINES.split(text.strip("\n")) if self._by_paragraph else [text]
            for part in parts:
                if part:
                    yield Document(self._name(path), part)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _text(self, path: Path, content: bytes) -> str:
        if not content.strip():
            raise DataError(path, "", "the file is empty", "remove it, or allow it with data.skip_bad_records")
        try:
            text = content.decode(self._encoding)
        except UnicodeDecodeError as error:
            rule = f"byte {error.start} is not {self._encoding}"
            raise DataError(path, "", rule, "convert the file, or set data.encoding") from None
        except LookupError:
            rule = f"data.encoding={self._encoding!r} is not an encoding that Python knows"
            raise DataError(path, "", rule, "set it to utf-8, latin-1, ...") from None
        if "\0" in text:
            raise DataError(path, "", f"character {text.index(chr(0))} is NUL, so it is no text", "correct data.files")
        return text.replace("\r\n", "\n")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, "", f"the file cannot be read ({error.strerror})", "make it readable") from error


def _both(*parts: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Joins the contents of several folders so that moving a file between them changes the hash."""
    for number, part in enumerate(parts):
        yield f"/{number}", b""
        yield from part


def _versions(subword: bool) -> Sequence[str]:
    if not subword:
        return ()
    import tokenizers

    return (tokenizers.__version__,)
