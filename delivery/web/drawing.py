"""How a drawing has to be placed so that it looks like the images that a model was trained on.

Shape legend: N images, H height, W width.
"""

from __future__ import annotations

import numpy as np

_INK = 0.2  # brightness from which a pixel belongs to the figure


def figure_extent(images: np.ndarray) -> float:
    """The share of an image's side that the figure in it takes up, typically: 20 of 28 pixels in MNIST.

    Args:
        images: [N, H, W] or [N, H, W, channels], in [0, 1].

    Returns:
        In (0, 1]; 1 where the images are no bright figures on a dark ground, so that nothing is known.
    """
    bright = images.reshape(*images.shape[:3], -1).max(-1)
    if float(np.median(bright)) > _INK:
        return 1.0
    extents = []
    for image in bright > _INK:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        if rows.size:
            extents.append(
                max((rows[-1] - rows[0] + 1) / image.shape[0], (columns[-1] - columns[0] + 1) / image.shape[1])
            )
    return float(np.median(extents)) if extents else 1.0
