"""Text to token numbers and back: bytes, or a byte-level BPE trained on the corpus.

Token 0 ends a document in both. As a byte it is the NUL character, which no text holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import tokenizers

END_OF_DOCUMENT = 0
DEFAULT_VOCABULARY = 2048

_END_NAME = "<|end|>"
_PIECE_CHARACTERS = 2**18


class Tokenizer(Protocol):
    """Numbers the pieces of a text. `decode(encode(text)) == text` for every text without NUL.

    Attributes:
        vocabulary_size: Tokens lie in [0, vocabulary_size).
    """

    vocabulary_size: int

    def encode(self, text: str) -> np.ndarray:
        """Gives the tokens of a text, int32 [T]."""
        ...

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Gives the text of tokens; the end of a document gives nothing."""
        ...


class ByteTokenizer:
    """The bytes of UTF-8."""

    vocabulary_size = 256

    def encode(self, text: str) -> np.ndarray:
        """Gives the bytes of a text, int32 [T]."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Gives the text of bytes; those that are no UTF-8 become the replacement character."""
        return bytes(token for token in tokens if token != END_OF_DOCUMENT).decode(errors="replace")


class SubwordTokenizer:
    """Byte-pair encoding over bytes (Sennrich et al. 2016; Radford et al. 2019), by the tokenizers library."""

    def __init__(self, model: tokenizers.Tokenizer):
        self._model = model
        self.vocabulary_size = model.get_vocab_size()

    def encode(self, text: str) -> np.ndarray:
        """Gives the tokens of a text, int32 [T]."""
        pieces = self._model.encode_batch_fast(list(_pieces(text)), add_special_tokens=False)
        return np.concatenate([np.asarray(piece.ids, np.int32) for piece in pieces] or [np.zeros(0, np.int32)])

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Gives the text of tokens."""
        return self._model.decode([int(token) for token in tokens])

    def save(self, path: Path) -> None:
        """Writes the tokenizer as JSON of the tokenizers library.

        Raises:
            OSError: The file cannot be written.
        """
        path.write_text(self._model.to_str(), encoding="utf-8")


def train_subword(texts: Iterable[str], vocabulary: int) -> SubwordTokenizer:
    """Trains a subword tokenizer; the same texts in the same order always give the same one.

    Args:
        texts: The documents.
        vocabulary: The most tokens, at least 257: the end of a document, and all bytes. A small corpus gives fewer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[reportAttributeAccessIssue]
    model.decoder = decoders.ByteLevel()  # type: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_END_NAME],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator((piece for text in texts for piece in _pieces(text)), trainer)
    return SubwordTokenizer(model)


def load_subword(path: Path) -> SubwordTokenizer:
    """Reads a tokenizer that `SubwordTokenizer.save` wrote.

    Raises:
        OSError: The file cannot be read.
    """
    from tokenizers import Tokenizer

    return SubwordTokenizer(Tokenizer.from_str(path.read_text(encoding="utf-8")))


def _pieces(text: str) -> Iterator[str]:
    """Cuts a long text at line ends, so that its parts are encoded by several threads and in bounded memory."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PIECE_CHARACTERS) + 1 or len(text)
        yield text[start:end]
        start = end
