import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.data_streams import TextData
from trainer.data import text as text_module
from trainer.data.checks import DataError
from trainer.data.pipeline import evaluation_batches
from trainer.data.text import TextSource, open_text

HAMLET = "".join(f"line {number} of Hamlet: to be, or not to be\n" for number in range(60))
LEAR = "".join(f"{number}. Blow, winds, and crack your cheeks!\n" for number in range(40))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plays" / "late").mkdir(parents=True)
    (tmp_path / "plays" / "hamlet.txt").write_text(HAMLET)
    (tmp_path / "plays" / "late" / "lear.txt").write_text(LEAR)
    (tmp_path / "plays" / "notes.md").write_text("# not a play")
    return tmp_path / "plays"


def opened(folder: Path, split: Any = "train", **options: Any) -> TextSource:
    source = open_text(TextData(path=str(folder), **{"context": 16, **options}), split)
    assert isinstance(source, TextSource)
    return source


def tokens(source: TextSource) -> np.ndarray:
    return source.read(tf.range(source.schema.num_samples, dtype=tf.int64))["tokens"].numpy()


def joined(source: TextSource) -> str:
    """The text of all windows; only the rest that fills no window is missing."""
    windows = tokens(source)
    return source.tokenizer.decode([*windows[:, :-1].reshape(-1).tolist(), int(windows[-1, -1])])


@pytest.mark.parametrize("options", [{}, {"tokenizer": "subword", "vocabulary": 300}], ids=["bytes", "subword"])
def test_windows_hold_the_texts_in_order(folder: Path, options: dict) -> None:
    source = opened(folder, held_out_fraction=0.25, **options)
    windows = tokens(source)
    assert (windows.shape[1], windows.dtype) == (17, np.int32)
    np.testing.assert_array_equal(windows[1:, 0], windows[:-1, -1])
    text = joined(source)
    whole = "".join(part[: part.index("\n", int(len(part) * 0.75)) + 1] for part in (HAMLET, LEAR))
    assert whole.startswith(text)
    assert len(whole) - len(text) < 17 * 10
    assert windows.max() < source.schema.num_classes


def test_the_end_of_every_file_is_held_out(folder: Path) -> None:
    text = joined(opened(folder, "held_out", held_out_fraction=0.25))
    assert text.startswith("line 45 of Hamlet") or text.startswith("line 46 of Hamlet")
    assert "39. Blow" in text
    assert "line 10 " not in text and "\n9. Blow" not in text


def test_documents_are_separated(folder: Path) -> None:
    flat = tokens(opened(folder))[:, :-1].reshape(-1)
    assert np.count_nonzero(flat == 0) == 1


def test_windows_are_located(folder: Path) -> None:
    source = opened(folder, held_out_fraction=0.25)
    assert source.locate(2) == "hamlet.txt, token 32"
    last = source.locate(source.schema.num_samples - 1)
    assert last.startswith("late/lear.txt, token ")


def test_a_large_corpus_stays_mapped_and_reads_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = opened(folder)
    monkeypatch.setattr(text_module, "IN_MEMORY_BYTES", 0)
    mapped = opened(folder)
    assert in_memory.in_memory and not mapped.in_memory
    for one, other in zip(evaluation_batches(in_memory, 8), evaluation_batches(mapped, 8), strict=True):
        np.testing.assert_array_equal(one["tokens"], other["tokens"])
        assert other["tokens"].shape == (8, 17)


def test_tokens_are_made_once(folder: Path, cache: Path) -> None:
    options = {"tokenizer": "subword", "vocabulary": 300}
    first = tokens(opened(folder, **options))
    (made,) = cache.iterdir()
    stamps = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    np.testing.assert_array_equal(tokens(opened(folder, **options)), first)
    opened(folder, "held_out", **options)
    moved = folder.rename(folder.with_name("moved"))
    opened(moved, **options)
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == stamps
    assert list(cache.iterdir()) == [made]


@pytest.mark.parametrize("change", [{"vocabulary": 301}, {"held_out_fraction": 0.3}, {"tokenizer": "bytes"}, "text"])
def test_other_texts_or_settings_make_other_tokens(folder: Path, cache: Path, change: Any) -> None:
    options = {"tokenizer": "subword", "vocabulary": 300, "held_out_fraction": 0.2}
    opened(folder, **options)
    if change == "text":
        (folder / "hamlet.txt").write_text(HAMLET.replace("line 3 ", "line x "))
        opened(folder, **options)
    elif change == {"tokenizer": "bytes"}:
        opened(folder)
    else:
        opened(folder, **{**options, **change})
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "manifest"])
def test_damaged_tokens_are_made_again(folder: Path, cache: Path, damage: str) -> None:
    good = tokens(opened(folder))
    (made,) = cache.iterdir()
    path = made / ("manifest.json" if damage == "manifest" else "train")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if damage != "flip" else bytes([content[0] ^ 1]) + content[1:])
    np.testing.assert_array_equal(tokens(opened(folder)), good)


def test_an_own_folder_is_held_out_whole(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ode.txt").write_text("O wild West Wind, thou breath of Autumn's being\n" * 3)
    source = opened(folder, "held_out", held_out_path=str(tmp_path / "other"))
    assert joined(source).startswith("O wild West Wind")
    assert joined(opened(folder, held_out_path=str(tmp_path / "other"))).startswith(HAMLET)


def test_line_ends_of_other_systems_are_the_same_text(folder: Path) -> None:
    unix = tokens(opened(folder))
    for path in folder.rglob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(tokens(opened(folder)), unix)


def test_a_single_file_and_a_package_are_places_too(folder: Path) -> None:
    assert joined(opened(folder / "hamlet.txt")).startswith("line 0 of Hamlet")
    # A folder of an installed package, which is not imported for it.
    source = open_text(TextData(path="package:trainer/data", files="text.py", context=16), "train")
    assert joined(source).startswith('"""A folder of text files')


FAULTS = {
    "empty": (b"", "the file is empty"),
    "blank": (b"\n \n", "the file is empty"),
    "not utf-8": (b"caf\xe9", "byte 3 is not utf-8"),
    "nul": (b"ab\0c", "character 2 is NUL"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_bad_file_is_named_or_left_out(folder: Path, kind: str) -> None:
    content, rule = FAULTS[kind]
    clean = tokens(opened(folder))
    (folder / "bad.txt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        opened(folder)
    assert caught.value.file == str(folder / "bad.txt")
    assert rule in caught.value.rule
    source = opened(folder, skip_bad_records=1)
    assert [skipped.file for skipped in source.skipped.records()] == [str(folder / "bad.txt")]
    np.testing.assert_array_equal(tokens(source), clean)


def test_the_encoding_can_be_set(folder: Path) -> None:
    (folder / "hamlet.txt").write_bytes("café\n".encode("latin-1") * 40)
    assert joined(opened(folder, encoding="latin-1")).startswith("café\n")
    with pytest.raises(DataError, match=r"data\.encoding='latin-x' is not an encoding"):
        opened(folder, encoding="latin-x")


@pytest.mark.parametrize("files", ["/tmp/*.txt", "~/*.txt", "../*.txt", ""])
def test_a_pattern_that_leaves_the_folder_is_refused(files: str) -> None:
    with pytest.raises(ValueError, match=r"inside the folder data\.path|at least 1 character"):
        TextData(path="here", files=files)


def test_a_missing_or_empty_folder_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: it does not exist: correct data\.path"):
        opened(folder / "nowhere")
    with pytest.raises(DataError, match=r"no file in it matches '\*\.rst'"):
        opened(folder, files="*.rst")
    with pytest.raises(DataError, match="the package 'no_such_texts' is not installed"):
        open_text(TextData(path="package:no_such_texts/plays"), "train")


def test_a_text_shorter_than_a_window_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "late")
    with pytest.raises(DataError, match=r"the held-out part has \d+ tokens, less than a window of 1001"):
        opened(folder, "held_out", context=1000)


def test_a_full_disk_is_named(folder: Path, small_disk, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "long.txt").write_text(HAMLET * 100)
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(small_disk.folder))
    (small_disk.folder / "text").mkdir()
    small_disk.fill()
    try:
        with pytest.raises(DataError, match="the tokens cannot be stored") as caught:
            opened(folder)
    finally:
        small_disk.free()
    assert "PHALANX_CACHE_DIR" in caught.value.change
    assert list((small_disk.folder / "text").iterdir()) == []
    assert opened(folder).schema.num_samples > 10_000
