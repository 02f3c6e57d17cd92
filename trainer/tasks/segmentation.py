"""One class for each pixel.

Shape legend: B batch, H height, W width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainer.config.segmentation import SegmentationTask
from trainer.data.source import Schema
from trainer.tasks.classification import mean_of_known
from trainer.tasks.task import Batch, Task, describe_target, f1_scores, ratio, sample_weight


class Segmentation(Task):
    """Cross-entropy of the pixels with soft Dice (Milletari et al., "V-Net", 2016); IoU and Dice over the whole split.

    Raises:
        ValueError: The schema has no class for each pixel.
    """

    def __init__(self, config: SegmentationTask, schema: Schema):
        super().__init__(schema)
        target = schema.features.get(schema.target or "")
        if target is None or len(target.shape) != 2 or schema.num_classes is None or target.dtype != "int32":
            raise ValueError(
                f"task.name=segmentation needs a class for each pixel, int32 of height and width, but the data's "
                f"target is {describe_target(schema)}: choose another task.name, or data whose target is a mask"
            )
        self._config = config
        self._target = schema.target or ""
        self._num_classes = schema.num_classes
        self.output_shape = (*target.shape, schema.num_classes)

    def loss(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Of each image: the mean cross-entropy of its pixels in nats, and `task.dice` times its soft Dice loss."""
        logits, mask = tf.cast(outputs, tf.float32), batch[self._target]
        losses = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(mask, logits), [1, 2])
        if self._config.dice:
            losses += self._config.dice * self._dice_losses(logits, mask)
        weights = sample_weight(batch, losses)
        return losses * weights, weights

    def _dice_losses(self, logits: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """1 less the overlap of probabilities and mask, averaged over the classes but the first, the background."""
        share = tf.nn.softmax(logits)[:, :, :, 1:]
        actual = tf.one_hot(mask, self._num_classes)[:, :, :, 1:]
        both, either = tf.reduce_sum(share * actual, [1, 2]), tf.reduce_sum(share + actual, [1, 2])
        # One pixel more of each, so that a class that is neither there nor found costs nothing.
        return 1.0 - tf.reduce_mean((2.0 * both + 1.0) / (either + 1.0), -1)

    def metric_sums(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """`pixels`, [3C]: hits, predictions and occurrences of each class, exact to 2**24 pixels a batch."""
        weights = sample_weight(batch, outputs)[:, None]
        is_predicted = tf.one_hot(tf.argmax(outputs, -1, output_type=tf.int32), self._num_classes)
        is_actual = tf.one_hot(batch[self._target], self._num_classes)
        counts = [tf.reduce_sum(pixels, [1, 2]) for pixels in (is_predicted * is_actual, is_predicted, is_actual)]
        return {"pixels": tf.concat([tf.reduce_sum(count * weights, 0) for count in counts], 0)}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`mean_iou`, `foreground_dice` (without the first class, the background) and `pixel_accuracy`.

        Over all pixels of the split together, and averaged over the classes that occur or are predicted.
        """
        counts = np.asarray(sums["pixels"], np.float64).reshape(3, self._num_classes)
        hits, predicted, actual = counts
        return {
            "mean_iou": mean_of_known(ratio(hits, predicted + actual - hits)),
            "foreground_dice": mean_of_known(f1_scores(counts)[1:]),
            "pixel_accuracy": float(ratio(hits.sum(), actual.sum())),
        }

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`probabilities` [B, H, W, C] and `classes` [B, H, W], the most likely class of each pixel."""
        logits = tf.cast(outputs, tf.float32)
        return {"probabilities": tf.nn.softmax(logits), "classes": tf.argmax(logits, -1)}
