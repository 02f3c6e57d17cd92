"""Makes TFRecord shards laid out like ImageNet's, of images that can be told apart.

    python -m benchmarks.synthetic_records --out .data/synthetic-imagenet --count 512

Each class is a colour and a stripe direction under noise, at the sizes that photographs in ImageNet have, as JPEG of
the usual quality: reading them costs what reading photographs costs. The records hold `image/encoded` and
`image/class/label`, which counts classes from 1. The same arguments give the same bytes.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.record_writer import encode_example, write_shards

SIZES = ((375, 500), (500, 375), (333, 500), (400, 400))


def class_image(label: int, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Draws an image of a class, uint8 [height, width, 3], at one of the sizes in `SIZES`."""
    height, width = SIZES[rng.integers(len(SIZES))]
    angle = np.pi * label / num_classes
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    period = rng.uniform(40, 60)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period) + rng.uniform(0, 2 * np.pi))
    hue = 2 * np.pi * label / num_classes + np.asarray([0, 2, 4], np.float32) * np.pi / 3
    colour = 128 + 70 * np.cos(hue)
    # Grain of a camera: without it a JPEG would be small and decoding cheap.
    grain = rng.standard_normal((height, width, 1), np.float32) * 12
    return np.clip(colour + 40 * wave[..., None] + grain, 0, 255).astype(np.uint8)


def records(count: int, num_classes: int, seed: int) -> Iterator[bytes]:
    """Gives serialised examples, the classes in turn."""
    for number in range(count):
        label = number % num_classes
        # A stream of its own for each image, so that a larger set begins with the smaller one.
        rng = np.random.default_rng([seed, number])
        file = io.BytesIO()
        Image.fromarray(class_image(label, num_classes, rng)).save(file, "JPEG", quality=90)
        yield encode_example({"image/encoded": file.getvalue(), "image/class/label": label + 1})


def write_synthetic_records(
    folder: Path, count: int, held_out: int, num_classes: int = 10, num_shards: int = 4, seed: int = 0
) -> list[Path]:
    """Writes `train-*.tfrecord` with `count` images and `validation-*.tfrecord` with `held_out`.

    Returns:
        The paths of all shards.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    train = write_shards(folder, "train", records(count, num_classes, seed), num_shards)
    return train + write_shards(folder, "validation", records(held_out, num_classes, seed + 1))


def main() -> None:
    """Reads the command line and writes the records."""
    parser = argparse.ArgumentParser(description="Make TFRecord shards laid out like ImageNet's.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--count", type=int, default=512, help="training images")
    parser.add_argument("--held-out", type=int, default=64, help="validation images")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    paths = write_synthetic_records(
        options.out, options.count, options.held_out, options.classes, options.shards, options.seed
    )
    size = sum(path.stat().st_size for path in paths)
    print(f"{options.count} + {options.held_out} images, {size / 1e6:.1f} MB, in {len(paths)} shards in {options.out}")


if __name__ == "__main__":
    main()
