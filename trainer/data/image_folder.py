"""A folder of images with one folder a class: its classes and its files."""

import os
from collections.abc import Sequence
from pathlib import Path

from trainer.data.checks import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


def class_names(root: Path) -> list[str]:
    """The names of the class folders, sorted: the number of a class is its place.

    Raises:
        DataError: It is no folder, or holds none.
    """
    if not root.is_dir():
        raise DataError(root, "", "it is not a folder", "name the folder that holds one folder a class")
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(root, "", "it holds no folders", "put the images into one folder a class")
    return names


def image_files(root: Path, classes: Sequence[str]) -> list[str]:
    """Lists the images below the folder of each class, as paths with `/` relative to `root`.

    Raises:
        DataError: A class has none.
    """
    files: list[str] = []
    for name in classes:
        found = [
            Path(folder, file).relative_to(root).as_posix()
            for folder, _, inside in os.walk(root / name)
            for file in inside
            if file.lower().endswith(SUFFIXES) and not file.startswith(".")
        ]
        if not found:
            rule = f"it holds no images ({', '.join(SUFFIXES)})"
            raise DataError(root / name, "", rule, "add images of that class, or remove the folder")
        files += sorted(found)
    return files
