import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.tokenizer import END_OF_DOCUMENT, ByteTokenizer, Tokenizer, load_subword, train_subword

TEXTS = ["the cat sat on the mat\n" * 40, "thé caté\n\n  the hat\tsat 你好\n" * 40]


@pytest.fixture(scope="module")
def subword() -> Tokenizer:
    return train_subword(TEXTS, 300)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@pytest.mark.parametrize("kind", ["bytes", "subword"])
def test_decoding_gives_the_text_back(subword: Tokenizer, kind: str, text: str) -> None:
    tokenizer = ByteTokenizer() if kind == "bytes" else subword
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokens.dtype == np.int32
    assert ((tokens > END_OF_DOCUMENT) & (tokens < tokenizer.vocabulary_size)).all()


@pytest.mark.parametrize("kind", ["bytes", "subword"])
def test_the_end_of_a_document_is_no_text(subword: Tokenizer, kind: str) -> None:
    tokenizer = ByteTokenizer() if kind == "bytes" else subword
    assert tokenizer.decode([END_OF_DOCUMENT, *tokenizer.encode("ab"), END_OF_DOCUMENT]) == "ab"


def test_frequent_words_become_one_token(subword: Tokenizer) -> None:
    assert len(subword.encode(" sat")) == 1
    assert len(subword.encode("the cat sat on the mat")) < 12


def test_long_texts_are_cut_at_line_ends_and_lose_nothing(subword: Tokenizer) -> None:
    text = "the cat sat on the mat\n" * 30_000 + "x" * 300_000
    assert subword.decode(subword.encode(text)) == text


def test_a_small_corpus_gives_a_smaller_vocabulary() -> None:
    assert train_subword(["ab"], 10_000).vocabulary_size < 270


def test_a_stored_tokenizer_is_the_same(subword: Tokenizer, tmp_path: Path) -> None:
    train_subword(TEXTS, 300).save(tmp_path / "tokenizer.json")
    loaded = load_subword(tmp_path / "tokenizer.json")
    assert loaded.vocabulary_size == subword.vocabulary_size
    assert loaded.encode(TEXTS[1]).tolist() == subword.encode(TEXTS[1]).tolist()


def test_training_is_the_same_in_every_process_with_any_number_of_threads(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from trainer.data.tokenizer import train_subword;"
        "texts = ['%d %d ' % (i * i % 97, i % 13) * 9 for i in range(200)];"
        "train_subword(texts, 400).save(pathlib.Path(sys.argv[1]))"
    )
    stored = []
    for threads in ("1", "2", "4"):
        path = tmp_path / threads
        environment = {"RAYON_NUM_THREADS": threads, "PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", program, str(path)], check=True, env=environment)
        stored.append(path.read_bytes())
    assert stored[0] == stored[1] == stored[2]
