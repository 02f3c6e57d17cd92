"""A folder of images with one folder a class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.config.data_streams import ImagesData
from trainer.data.checks import DataError
from trainer.data.held_out import Split, choose_split, draw_names
from trainer.data.image_folder import class_names, image_files
from trainer.data.places import find_path
from trainer.data.source import Feature, Schema
from trainer.data.streaming import Sample, Stored, StreamingSource

IMAGE, LABEL = "image", "label"


class ImageFolderSource(StreamingSource):
    """The images of one split, in the order of class and file name."""

    def __init__(self, data: ImagesData, root: Path, names: Sequence[str], files: Sequence[str]):
        features = {IMAGE: Feature((*data.image_size, data.channels), "float32"), LABEL: Feature((), "int32")}
        schema = Schema(features, LABEL, len(files), len(names), tuple(names))
        super().__init__(schema, data.skip_bad_records, Stored({}, frozenset({IMAGE}), data.resize))
        self._root, self._files = root, list(files)
        numbers = {name: number for number, name in enumerate(names)}
        self._labels = np.asarray([numbers[file.split("/", 1)[0]] for file in files], np.int32)

    def place(self, index: int) -> tuple[str, str]:
        """Names the file."""
        return str(self._root / self._files[index]), ""

    def load(self, index: np.ndarray) -> Sequence[Sample | DataError]:
        """Reads the files at `index`."""
        return [self._load_one(int(i)) for i in index]

    def _load_one(self, index: int) -> Sample | DataError:
        try:
            image = (self._root / self._files[index]).read_bytes()
        except OSError as error:
            return self.error(index, f"the file cannot be read ({error.strerror})")
        return {IMAGE: image, LABEL: self._labels[index]}


def open_images(data: ImagesData, split: Split) -> ImageFolderSource:
    """Lists the images of a split.

    Raises:
        DataError: The folder is missing, has no class folders, one of them has no images, or the held-out folder has a
            class that the training folder has not.
    """
    root = find_path(data.path, "data.path")
    classes = class_names(root)
    if data.held_out_by == "class":
        return _open_by_class(data, root, classes, split)
    if data.held_out_path is None:
        files = image_files(root, classes)
        chosen = choose_split(root, draw_names(files), data.held_out_fraction, split)
        return ImageFolderSource(data, root, classes, [files[i] for i in chosen.tolist()])
    if split == "train":
        return ImageFolderSource(data, root, classes, image_files(root, classes))
    held_out = find_path(data.held_out_path, "data.held_out_path")
    held_out_classes = class_names(held_out)
    unknown = sorted(set(held_out_classes) - set(classes))
    if unknown:
        rule = f"the class {unknown[0]!r} is not among the {len(classes)} of {root}"
        raise DataError(held_out / unknown[0], "", rule, "rename the folder, or add training images of that class")
    return ImageFolderSource(data, held_out, classes, image_files(held_out, held_out_classes))


def _open_by_class(data: ImagesData, root: Path, classes: Sequence[str], split: Split) -> ImageFolderSource:
    """Whole folders are held out. Their classes are numbered behind those of training."""
    if data.held_out_path is not None:
        place = find_path(data.held_out_path, "data.held_out_path")
        trained, held_out = list(classes), class_names(place)
    else:
        place = root
        kept = set(choose_split(root, draw_names(classes), data.held_out_fraction, "train").tolist())
        trained = [name for number, name in enumerate(classes) if number in kept]
        held_out = [name for number, name in enumerate(classes) if number not in kept]
    if split == "train":
        return ImageFolderSource(data, root, trained, image_files(root, trained))
    names = [*trained, *(name for name in held_out if name not in set(trained))]
    return ImageFolderSource(data, place, names, image_files(place, held_out))
