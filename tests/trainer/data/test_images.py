import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.config.data_streams import ImagesData
from trainer.data.checks import DataError
from trainer.data.images import ImageFolderSource, open_images
from trainer.data.pipeline import evaluation_batches

SHADES = {"ant": 10, "bee": 100, "cat": 200}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images a class, each of the colour of its class plus its number, of different sizes and formats."""
    for name, shade in SHADES.items():
        (tmp_path / name / "inside").mkdir(parents=True)
        for number in range(8):
            image = Image.new("RGB", (9 + number, 7), (shade + number, 0, 0))
            place = tmp_path / name / "inside" if number == 7 else tmp_path / name
            image.save(place / f"{number}.{'png' if number % 2 else 'bmp'}")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def opened(folder: Path, split: Any = "train", **options: Any) -> ImageFolderSource:
    return open_images(ImagesData(path=str(folder), image_size=(4, 4), **options), split)


def read(source: ImageFolderSource) -> dict[str, np.ndarray]:
    batch = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    return {name: values.numpy() for name, values in batch.items()}


def shades(source: ImageFolderSource) -> list[int]:
    return np.rint(read(source)["image"][:, 2, 2, 0] * 255).astype(int).tolist()


def test_folders_are_classes_and_their_images_samples(folder: Path) -> None:
    source = opened(folder, held_out_path=str(folder))
    assert source.schema.class_names == ("ant", "bee", "cat")
    assert source.schema.num_classes == 3
    batch = read(source)
    assert batch["label"].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert shades(source) == [shade + number for shade in SHADES.values() for number in range(8)]
    assert source.locate(7) == str(folder / "ant" / "inside" / "7.png")
    assert (batch["image"].dtype, batch["label"].dtype) == (np.float32, np.int32)


def test_the_fraction_held_out_is_exact_and_stays_when_files_are_added(folder: Path) -> None:
    train, held_out = (opened(folder, split, held_out_fraction=0.3) for split in ("train", "held_out"))
    everything = sorted(shades(train) + shades(held_out))
    assert everything == sorted(shade + number for shade in SHADES.values() for number in range(8))
    before = shades(held_out)
    for number in range(20):
        Image.new("RGB", (5, 5), (255, 0, 0)).save(folder / "bee" / f"new{number}.png")
    after = [shade for shade in shades(opened(folder, "held_out", held_out_fraction=0.3)) if shade != 255]
    assert after == before


def test_a_second_folder_has_the_labels_of_the_first(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("held_out")
    (other / "cat").mkdir()
    Image.new("RGB", (5, 5), (7, 0, 0)).save(other / "cat" / "x.png")
    source = opened(folder, "held_out", held_out_path=str(other))
    assert read(source)["label"].tolist() == [2]
    assert source.schema.num_classes == 3
    (other / "dog").mkdir()
    Image.new("RGB", (5, 5)).save(other / "dog" / "x.png")
    with pytest.raises(DataError, match=r"dog: the class 'dog' is not among the 3 of"):
        opened(folder, "held_out", held_out_path=str(other))


def test_grey_images(folder: Path) -> None:
    source = opened(folder, held_out_path=str(folder), channels=1)
    assert read(source)["image"].shape == (24, 4, 4, 1)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: it does not exist: correct data\.path"):
        opened(tmp_path / "nowhere")


def test_a_folder_without_classes_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (5, 5)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"it holds no folders: put the images into one folder a class"):
        opened(tmp_path)


def test_a_class_without_images_is_named(folder: Path) -> None:
    (folder / "dog").mkdir()
    (folder / "dog" / "readme.md").write_text("soon")
    with pytest.raises(DataError, match=r"dog: it holds no images .*: add images of that class, or remove the folder"):
        opened(folder)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "the image is empty (0 bytes)"),
        (b"<html>not found</html>", "not an image of a known format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "the PNG image of 108 bytes cannot be decoded"),
    ],
)
def test_a_bad_file_is_named_or_left_out(folder: Path, content: bytes, rule: str) -> None:
    bad = folder / "bee" / "2.bmp"
    bad.write_bytes(content)
    source = opened(folder, held_out_path=str(folder))
    with pytest.raises(tf.errors.OpError):
        list(evaluation_batches(source, 5))
    assert source.failure is not None
    assert source.failure.file == str(bad)
    assert rule in source.failure.rule
    lenient = opened(folder, held_out_path=str(folder), skip_bad_records=1)
    weights = [batch["sample_weight"] for batch in evaluation_batches(lenient, 6).as_numpy_iterator()]
    assert np.flatnonzero(np.concatenate(weights) == 0).tolist() == [10]
    assert [skipped.file for skipped in lenient.skipped.records()] == [str(bad)]


def test_libjpeg_says_nothing_about_an_image_that_is_cut_off(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "JPEG")
        whole = file.getvalue()
    (folder / "bee" / "2.bmp").write_bytes(whole[:500])
    source = opened(folder, held_out_path=str(folder), skip_bad_records=1)
    for _ in range(2):
        list(evaluation_batches(source, 6))
    [skipped] = source.skipped.records()
    assert skipped.file == str(folder / "bee" / "2.bmp") and "is cut off" in skipped.rule
    assert "JPEG" not in capfd.readouterr().err


def test_a_file_that_is_removed_during_the_run_is_named(folder: Path) -> None:
    source = opened(folder, held_out_path=str(folder))
    (folder / "ant" / "0.bmp").unlink()
    with pytest.raises(DataError, match=r"ant/0\.bmp: the file cannot be read \(No such file or directory\)"):
        read(source)


def test_whole_folders_can_be_held_out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    train, held_out = (
        opened(folder, split, held_out_by="class", held_out_fraction=0.3) for split in ("train", "held_out")
    )
    classes = train.schema.class_names
    assert classes and held_out.schema.class_names and held_out.schema.class_names[: len(classes)] == classes
    assert sorted(held_out.schema.class_names) == sorted(SHADES)
    assert set(read(train)["label"]) == set(range(len(classes)))
    assert set(read(held_out)["label"]) == set(range(len(classes), 3))
    other = tmp_path_factory.mktemp("other")
    for name in ("bee", "dog"):
        (other / name).mkdir()
        Image.new("RGB", (8, 8)).save(other / name / "0.png")
    found = opened(folder, "held_out", held_out_by="class", held_out_path=str(other))
    assert found.schema.class_names == ("ant", "bee", "cat", "dog") and set(read(found)["label"]) == {1, 3}
