"""The source `glyphs`: letters of many alphabets in twelve typefaces, for verification where no faces may be shipped.

Each letter is a class and each typeface one picture of it, as a person's photographs are in a set of faces: many
classes with few images each. The letters of the held-out split are never seen in training.
"""

from __future__ import annotations

import functools
import unicodedata
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from trainer.config.verification import GlyphsData
from trainer.data.held_out import Split, choose_split, draw_names, draw_records
from trainer.data.memory import MemorySource
from trainer.data.places import find_path
from trainer.data.source import Feature, Schema, SkippedRecords

FOLDER = "package:matplotlib/mpl-data/fonts/ttf"
TYPEFACES = tuple(
    f"DejaVu{family}{style}.ttf"
    for family, styles in {
        "Sans": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "SansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "Serif": ("", "-Bold", "-Italic", "-BoldItalic"),
    }.items()
    for style in styles
)
SIDE, SIZE = 28, 20
"""Pixels a side of an image, and of the letters in it."""
_LETTERS = frozenset(("Lu", "Ll", "Lo"))


def open_glyphs(data: GlyphsData, split: Split) -> MemorySource:
    """Draws the letters of a split: `image`, float32 [28, 28, 1] in [0, 1], and `label`, int32.

    The classes of the held-out split are numbered behind those of training.

    Raises:
        DataError: matplotlib is not installed, or has not these typefaces.
    """
    letters, images = _drawn(find_path(FOLDER, "data.name"))
    train, held_out = (choose_split(data.name, draw_names(letters), data.held_out_fraction, side) for side in _SPLITS)
    order = np.concatenate([train, held_out])
    chosen, first = (train, 0) if split == "train" else (held_out, len(train))
    names = tuple(letters[i] for i in (order if split == "held_out" else train))
    labels = np.repeat(np.arange(first, first + len(chosen), dtype=np.int32), len(TYPEFACES))
    rows = np.argsort(draw_records(f"{data.name} order", len(labels)))
    features = {"image": Feature((SIDE, SIDE, 1), "float32"), "label": Feature((), "int32")}
    arrays = {"image": images[chosen].reshape(-1, SIDE, SIDE, 1)[rows], "label": labels[rows]}

    def place(index: int) -> tuple[str, str]:
        letter, typeface = divmod(int(rows[index]), len(TYPEFACES))
        return TYPEFACES[typeface], f"letter U+{ord(letters[chosen[letter]]):04X}"

    schema = Schema(features, "label", len(labels), len(names), names)
    return MemorySource(schema, arrays, place, skipped=SkippedRecords(data.skip_bad_records))


_SPLITS: tuple[Split, Split] = ("train", "held_out")


@functools.lru_cache(maxsize=1)
def _drawn(folder: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Letters that all typefaces have, and their images, uint8 [letters, typefaces, side, side].

    A letter with an accent is left out, and so is one that looks like another, as the Latin and the Greek A do.
    """
    files = [find_path(f"{folder}/{name}", "data.name") for name in TYPEFACES]
    codes = set.intersection(*(set(TTFont(file, lazy=True).getBestCmap() or ()) for file in files))
    letters = [chr(code) for code in sorted(codes)]
    letters = [one for one in letters if unicodedata.category(one) in _LETTERS and not unicodedata.decomposition(one)]
    fonts = [ImageFont.truetype(str(file), SIZE, layout_engine=ImageFont.Layout.BASIC) for file in files]
    images = np.stack([np.stack([_image(letter, font) for font in fonts]) for letter in letters])
    _, first = np.unique(images[:, 0].reshape(len(letters), -1), axis=0, return_index=True)
    first.sort()
    return tuple(letters[i] for i in first), images[first]


def _image(letter: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """The letter in the middle of an image."""
    image = Image.new("L", (SIDE, SIDE))
    left, top, right, bottom = font.getbbox(letter)
    ImageDraw.Draw(image).text(((SIDE - left - right) // 2, (SIDE - top - bottom) // 2), letter, fill=255, font=font)
    return np.asarray(image)
