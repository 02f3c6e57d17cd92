"""Writes TFRecord shards of tf.train.Example."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from trainer.data.cache_folder import written_whole
from trainer.data.example_message import Example
from trainer.data.record_format import frame

Value = bytes | str | int | float | np.ndarray | list[int] | list[float] | list[bytes]


def encode_example(features: Mapping[str, Value]) -> bytes:
    """Serialises one sample; the same sample always gives the same bytes.

    Args:
        features: Values by name. Bytes and text become a bytes_list, integers an int64_list, floats a float_list;
            arrays are flattened.

    Raises:
        ValueError: A value is of none of these types.
    """
    example = Example()
    for name in sorted(features):
        value = features[name]
        target = example.features.feature[name]
        if isinstance(value, str | bytes):
            value = [value.encode() if isinstance(value, str) else value]
        if isinstance(value, list) and value and isinstance(value[0], bytes):
            target.bytes_list.value.extend(value)
            continue
        array = np.asarray(value).reshape(-1)
        if array.dtype.kind in "iub":
            target.int64_list.value.extend(array.astype(np.int64).tolist())
        elif array.dtype.kind == "f":
            target.float_list.value.extend(array.astype(np.float32).tolist())
        else:
            raise ValueError(f"feature {name!r} is of type {array.dtype}: give bytes, text, integers or floats")
    return example.SerializeToString(deterministic=True)


def write_shards(folder: Path, prefix: str, payloads: Iterable[bytes], num_shards: int = 1) -> list[Path]:
    """Writes payloads to `prefix-00000-of-00004.tfrecord` and so on, one after the other in turn.

    The files get their names when all of them are written whole.

    Returns:
        The paths of the shards.

    Raises:
        ValueError: `num_shards` is below 1.
        OSError: The folder cannot be written to, or the disk is full.
    """
    if num_shards < 1:
        raise ValueError(f"num_shards={num_shards} must be at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{prefix}-{shard:05d}-of-{num_shards:05d}.tfrecord" for shard in range(num_shards)]
    with ExitStack() as finish:
        temporary = [finish.enter_context(written_whole(path)) for path in paths]
        with ExitStack() as close:
            files = [close.enter_context(open(path, "wb")) for path in temporary]
            for number, payload in enumerate(payloads):
                files[number % num_shards].write(frame(payload))
    return paths
