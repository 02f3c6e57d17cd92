"""Which items of all fit somebody.

Shape legend: B batch, D width of a vector, N collected rows, P people, I items.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainer.config.recommendation import RetrievalTask
from trainer.data.source import Schema
from trainer.tasks.task import Batch, Task, ratio, sample_weight
from trainer.tasks.top_k import Interactions, top_k_metrics

USER, ITEM, LOG_SHARE = "user_id", "item_id", "log_share"
NOWHERE = -1e9  # a logit that no exponential notices


class Retrieval(Task):
    """Softmax over the items of the batch, corrected by how often each is drawn; recall and NDCG over all items.

    A training sample is somebody with an item that fits. The held-out split has the items to be found (target 1) and,
    so that the metrics need nothing else, what is known with weight 0 (target 0): each interaction of training, which
    is left out of the lists, and each item once, with the person 0.

    Raises:
        ValueError: The schema has no people and items.
    """

    def __init__(self, config: RetrievalTask, schema: Schema):
        super().__init__(schema)
        missing = [name for name in (USER, ITEM, LOG_SHARE) if name not in schema.inputs]
        if missing or schema.target is None:
            raise ValueError(
                f"task.name=retrieval needs the features {USER}, {ITEM} and {LOG_SHARE} and a target that says what is "
                f"to be found, but the data lacks {missing[0] if missing else 'the target'}: choose another task.name, "
                "or data of people and items"
            )
        self._config = config
        self._target = schema.target
        self.input_features = {name: it for name, it in schema.inputs.items() if name != LOG_SHARE}
        self.output_shape = (2, config.width)

    def _logits(self, outputs: tf.Tensor, batch: Batch) -> tf.Tensor:
        """How well each person of the batch fits each item of it, float32 [B, B]; the pairs are on the diagonal."""
        vectors = tf.cast(outputs, tf.float32)
        logits = tf.matmul(vectors[:, 0], vectors[:, 1], transpose_b=True) / self._config.temperature
        # A popular item is in many batches and would be pushed away as often (Yi et al. 2019).
        logits -= batch[LOG_SHARE][None, :]
        items = batch[ITEM]
        is_same = tf.equal(items[:, None], items[None, :])
        is_pair = tf.equal(tf.range(tf.size(items))[:, None], tf.range(tf.size(items))[None, :])
        # Padding is no example of anything, and an item that is there twice is not wrong the second time.
        is_left_out = tf.logical_or(is_same, sample_weight(batch, outputs)[None, :] == 0)
        return tf.where(tf.logical_and(is_left_out, tf.logical_not(is_pair)), NOWHERE, logits)

    def loss(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Cross-entropies of the items among those of the batch, in nats, and the weights of the samples."""
        logits = self._logits(outputs, batch)
        losses = tf.reduce_logsumexp(logits, -1) - tf.linalg.diag_part(logits)
        weights = sample_weight(batch, losses)
        return losses * weights, weights

    def metric_sums(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """`batch`, [2]: samples whose item is the best one of the batch, and all, by weight."""
        logits = self._logits(outputs, batch)
        is_hit = tf.cast(tf.linalg.diag_part(logits) >= tf.reduce_max(logits, -1), tf.float32)
        weights = sample_weight(batch, outputs)
        return {"batch": tf.stack([tf.reduce_sum(is_hit * weights), tf.reduce_sum(weights)])}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`batch_accuracy`: how often a sample's item is the best one of its batch; it depends on the batch size."""
        hits, total = np.asarray(sums["batch"], np.float64)
        return {"batch_accuracy": float(ratio(hits, total))}

    def collect(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """People, items and their vectors, popularity, and what is to be found; [B, ...] each."""
        vectors = tf.cast(outputs, tf.float32)
        return {
            "user": batch[USER],
            "item": batch[ITEM],
            "user_vector": vectors[:, 0],
            "item_vector": vectors[:, 1],
            "log_share": batch[LOG_SHARE],
            "to_find": tf.cast(batch[self._target], tf.int32),
        }

    def collected_metrics(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`recall_k` and `ndcg_k` for each `task.k`, and `popular_recall_k`, those of a list of the most popular."""
        of_user, user_row = np.unique(collected["user"], return_index=True)
        of_item, item_row = np.unique(collected["item"], return_index=True)
        pairs = np.stack([np.searchsorted(of_user, collected["user"]), np.searchsorted(of_item, collected["item"])], 1)
        is_real = (collected["user"] > 0) & (collected["item"] > 0)
        to_find = collected["to_find"] == 1
        interactions = Interactions(pairs[is_real & to_find], pairs[is_real & ~to_find])
        users, items = collected["user_vector"][user_row], collected["item_vector"][item_row]
        popularity = collected["log_share"][item_row].astype(np.float64)
        # Item 0 stands for all unknown ones and is nothing to recommend.
        is_item = of_item > 0
        found = top_k_metrics(lambda rows: users[rows] @ items.T, interactions, is_item, self._config.k)
        popular = top_k_metrics(
            lambda rows: np.broadcast_to(popularity, (len(rows), len(popularity))),
            interactions,
            is_item,
            self._config.k,
        )
        return found | {f"popular_{name}": value for name, value in popular.items() if name.startswith("recall")}

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`user` and `item`, the vectors, [B, D] each, and `score`, their product, [B]."""
        vectors = tf.cast(outputs, tf.float32)
        user, item = vectors[:, 0], vectors[:, 1]
        return {"user": user, "item": item, "score": tf.reduce_sum(user * item, -1)}
