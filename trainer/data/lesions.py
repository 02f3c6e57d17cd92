"""The source `lesions`: made-up scans with planted shapes, for segmentation where no real scans may be shipped.

These are no medical images, and a model that finds every shape here has learned nothing about patients. They have what
makes scans hard: uneven tissue, noise, soft edges, weak contrast, bright spots that are no lesions, and two kinds of
lesion that differ by their outline alone.

Shape legend: S pixels a side.
"""

from __future__ import annotations

import numpy as np

from trainer.config.segmentation import LesionsData
from trainer.data.held_out import Split
from trainer.data.memory import MemorySource
from trainer.data.source import Feature, Schema

CLASSES = ("tissue", "smooth", "spiky")
MOST_LESIONS = 3
# Of the image's side; far enough apart that a lesion's outline decides and not its size.
RADII = (0.12, 0.2)
SPIKES = (6, 9)
SPIKE_HEIGHT = 0.35
CONTRAST = (0.12, 0.3)
NOISE = 0.05


def open_lesions(data: LesionsData, split: Split) -> MemorySource:
    """Makes the scans of a split: `image`, float32 [S, S, 1] in [0, 1], and `mask`, int32 [S, S]."""
    count = data.num_samples if split == "train" else data.held_out_samples
    images = np.empty((count, data.size, data.size, 1), np.float32)
    masks = np.empty((count, data.size, data.size), np.int32)
    for i in range(count):
        draw = np.random.default_rng([data.data_seed, split == "held_out", i])
        images[i, ..., 0], masks[i] = _scan(data.size, draw)
    features = {
        "image": Feature((data.size, data.size, 1), "float32"),
        "mask": Feature((data.size, data.size), "int32", num_values=len(CLASSES)),
    }
    schema = Schema(features, "mask", count, len(CLASSES), CLASSES)
    return MemorySource(schema, {"image": images, "mask": masks}, lambda index: ("lesions", f"scan {index}"))


def _scan(size: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2, indexing="ij")
    image, mask = _tissue(rows, columns, draw), np.zeros((size, size), np.int32)
    for _ in range(draw.integers(0, MOST_LESIONS + 1)):
        kind = int(draw.integers(1, len(CLASSES)))
        inside, soft = _lesion(rows, columns, kind, draw)
        if (mask[inside] > 0).any():
            continue  # they do not touch each other
        mask[inside] = kind
        image += soft * draw.uniform(*CONTRAST)
    for _ in range(draw.integers(0, 4)):  # bright spots that are no lesions
        row, column, radius = *draw.random(2), draw.uniform(0.01, 0.025)
        image += 0.3 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * radius**2))
    image += draw.normal(0, NOISE, image.shape)
    return np.clip(image, 0, 1).astype(np.float32), mask


def _tissue(rows: np.ndarray, columns: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Slow waves in any direction around a grey that differs from scan to scan."""
    image = np.full(rows.shape, draw.uniform(0.25, 0.5))
    for _ in range(6):
        angle, frequency, phase = draw.uniform(0, np.pi), draw.uniform(1, 8), draw.uniform(0, 2 * np.pi)
        along = rows * np.sin(angle) + columns * np.cos(angle)
        image += draw.uniform(0.01, 0.04) * np.sin(2 * np.pi * frequency * along + phase)
    return image


def _lesion(
    rows: np.ndarray, columns: np.ndarray, kind: int, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where a lesion is, bool [S, S], and how much of it shows, in [0, 1]: its edge is two pixels soft."""
    row, column = draw.uniform(0.15, 0.85, 2)
    angle = np.arctan2(rows - row, columns - column)
    stretch, turn = draw.uniform(0.75, 1.0), draw.uniform(0, np.pi)
    radius = draw.uniform(*RADII) * np.sqrt(np.cos(angle - turn) ** 2 + (stretch * np.sin(angle - turn)) ** 2)
    if kind == CLASSES.index("spiky"):
        spikes = draw.integers(*SPIKES, endpoint=True)
        radius = radius * (1 + SPIKE_HEIGHT * np.sin(spikes * angle + draw.uniform(0, 2 * np.pi)))
    beyond = np.hypot(rows - row, columns - column) - radius
    edge = 1.0 / rows.shape[0]
    return beyond < 0, 1 / (1 + np.exp(np.clip(beyond / edge * 2, -50, 50)))
