"""What a replica of TensorFlow's mirrored strategies does alone: its slice of a batch, its copy of the state.

Slices are counted within the process: a block holds what the process reads of each global batch.
"""

from __future__ import annotations

import tensorflow as tf

from trainer.step.gradients import Batch


def global_replica() -> int:
    """This replica's number among those of all workers."""
    replica = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
    assert replica is not None, "the mirrored strategies trace each replica with a constant id"
    return int(replica)


def own_copy(variable: tf.Variable) -> tf.Variable:
    """The replica's own component, written without the reduction that TensorFlow would ask for."""
    copies = variable.values  # type: ignore[attr-defined]
    return copies[global_replica() % len(copies)]


def own_slice(batch: Batch, local_replicas: int) -> Batch:
    """The replica's rows of what its process read, [b, ...] of [b * local_replicas, ...]."""
    size, replica = _slice_size(batch, local_replicas), global_replica() % local_replicas
    return {name: value[replica * size : (replica + 1) * size] for name, value in batch.items()}


def first_position(batch: Batch, local_replicas: int) -> tf.Tensor:
    """The position of the replica's first sample in the global batch, int64."""
    return tf.constant(global_replica() * _slice_size(batch, local_replicas), tf.int64)


def _slice_size(batch: Batch, local_replicas: int) -> int:
    num_samples = next(iter(batch.values())).shape[0]
    assert num_samples is not None, "the config refuses replicas for batches whose size differs"
    return num_samples // local_replicas
