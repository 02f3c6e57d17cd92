"""A folder of images with one folder a class: a record holds the encoded image and the number of its class."""

from collections.abc import Iterator, Sequence

from trainer.config.data_streams import RecordFeature
from trainer.data.checks import DataError
from trainer.data.image_faults import undecodable
from trainer.data.image_folder import class_names, image_files
from trainer.data.places import find_path
from trainer.data.record_writer import encode_example
from trainer.preparation.formats import Record, Survey
from trainer.preparation.raw_files import SETTING, grouped, raw_file, unchanged
from trainer.preparation.request import Chunk, Contents, Request

NEEDS_SURVEY = False
IMAGE, LABEL = "image", "label"
_CHANGE = "correct it, or leave such files out with --skip-damaged"


def chunks(request: Request) -> list[Chunk]:
    """Lists the images. See `RawFormat`."""
    root = find_path(request.source, SETTING)
    names = image_files(root, class_names(root))
    return grouped([raw_file((root / name).absolute(), name) for name in names], request.chunk_bytes)


def survey(request: Request, chunk: Chunk) -> Survey:
    """Not needed."""
    return {}


def contents(request: Request, chunks: Sequence[Chunk], surveys: Sequence[Survey]) -> Contents:
    """The image as it is in its file, and its class."""
    classes = class_names(find_path(request.source, SETTING))
    features = {
        IMAGE: RecordFeature(kind="image"),
        LABEL: RecordFeature(kind="integer", num_values=len(classes)),
    }
    return Contents(features=features, target=LABEL, num_classes=len(classes), class_names=tuple(classes))


def read(request: Request, chunk: Chunk, contents: Contents) -> Iterator[Record | DataError]:
    """Reads each image and decodes it once, to be sure that it can be."""
    numbers = {name: number for number, name in enumerate(contents.class_names or ())}
    for file in chunk.files:
        with unchanged(file) as path:
            image = path.read_bytes()
        rule = undecodable(image)
        if rule is not None:
            yield DataError(file.path, "", rule, _CHANGE)
            continue
        label = numbers[file.name.split("/", 1)[0]]
        yield Record(file.name, 0, encode_example({IMAGE: image, LABEL: label}))
