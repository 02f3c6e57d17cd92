"""Data sets of TensorFlow Datasets, read at random from its array_record files."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from trainer.config.data_streams import TfdsData
from trainer.data.checks import DataError
from trainer.data.held_out import Split
from trainer.data.source import Feature, Schema
from trainer.data.streaming import Sample, Stored, StreamingSource

HELD_OUT_SPLITS = ("validation", "test")


class TfdsSource(StreamingSource):
    """One split of a prepared data set.

    Args:
        data: The options.
        builder: The data set, a `tfds.core.DatasetBuilder`.
        split: The split by its name there.
        declared: The features to read, by name; those inside a dict have `/` in their name.
        tfds: The package.
    """

    def __init__(self, data: TfdsData, builder: Any, split: str, declared: dict[str, Any], tfds: ModuleType):
        self._data, self._split = data, split
        self._images = frozenset(name for name in declared if _is_encoded_image(declared[name], tfds))
        stored = _flat(builder.info.features)
        skipped = {name: tfds.decode.SkipDecoding() for name in stored if _is_encoded_image(stored[name], tfds)}
        try:
            self._records = builder.as_data_source(split=split, decoders=_nested(skipped))
        except NotImplementedError as error:
            rule = f"it was prepared as {builder.info.file_format}, in which records cannot be read at random"
            change = "prepare it again with `tfds build --file_format=array_record`, or in another data.data_dir"
            raise DataError(data.name, "", rule, change) from error
        if not len(self._records):
            raise DataError(data.name, "", f"its split {split!r} is empty", "correct data.split")
        features = {name: self._feature(name, feature) for name, feature in declared.items()}
        label: Any = declared.get(data.target or "")
        class_names = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else None
        num_classes = len(class_names) if class_names else None
        schema = Schema(features, data.target, len(self._records), num_classes, class_names)
        types = {name: str(np.dtype(feature.np_dtype)) for name, feature in declared.items()}
        super().__init__(schema, data.skip_bad_records, Stored(types, self._images, data.resize))

    def place(self, index: int) -> tuple[str, str]:
        """Names the split and the number of the record in it."""
        return f"{self._data.name}[{self._split}]", f"record {index}"

    def load(self, index: np.ndarray) -> Sequence[Sample | DataError]:
        """Reads and decodes the records at `index`."""
        try:
            records = self._records.__getitems__(index.tolist())
        except Exception:
            # The readers and parsers of the package raise whatever they like: ask one by one which record it was.
            return [self._load_alone(i) for i in index.tolist()]
        return [self._sample(record) for record in records]

    def _load_alone(self, index: int) -> Sample | DataError:
        try:
            return self._sample(self._records[index])
        except Exception as error:
            return self.error(index, f"it cannot be read ({_one_line(error)})")

    def _sample(self, record: Any) -> Sample:
        flat = _flat(record)
        return {name: flat[name] for name in self.schema.features}

    def _feature(self, name: str, declared: Any) -> Feature:
        shape = tuple(declared.shape)
        if name in self._images:
            size = self._data.image_size or shape[:2]
            if None in size:
                rule = f"the images of feature {name!r} are of different sizes"
                raise DataError(self._data.name, "", rule, "set data.image_size, such as [224, 224]")
            return Feature((*size, shape[2]), "float32")
        dtype = np.dtype(declared.np_dtype)
        if dtype == np.float64:
            return Feature(shape, "float32")
        # A class is an int64 in the files, and known to be small.
        return Feature(shape, "int32" if hasattr(declared, "num_classes") or dtype == np.bool_ else str(dtype))


def open_tfds(data: TfdsData, split: Split) -> TfdsSource:
    """Opens a split; prepares the data set first when that is allowed and not done yet.

    Raises:
        DataError: The package is missing, the data set or the split is unknown, it cannot be downloaded, or a feature
            is no number of a fixed shape.
    """
    tfds = _package(data)
    builder = _prepared(data, tfds)
    name = data.split if split == "train" else data.held_out_split or _default_held_out(data, builder)
    if name.split("[")[0].split("+")[0] not in builder.info.splits:
        setting = "data.split" if split == "train" else "data.held_out_split"
        rule = f"it has no split {name!r}"
        raise DataError(data.name, "", rule, f"set {setting} to one of {', '.join(builder.info.splits)}")
    return TfdsSource(data, builder, name, _chosen_features(data, builder, tfds), tfds)


def _package(data: TfdsData) -> ModuleType:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        rule = f"the package {error.name or 'tensorflow_datasets'!r} is not installed"
        raise DataError(data.name, "", rule, "install phalanx[tfds]") from error
    return tfds


def _prepared(data: TfdsData, tfds: ModuleType) -> Any:
    try:
        builder = tfds.builder(data.dataset, data_dir=data.data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        rule = "TensorFlow Datasets has no data set of this name, and neither has data.data_dir"
        raise DataError(data.name, "", rule, "correct data.name, or data.data_dir") from error
    except Exception as error:
        raise DataError(data.name, "", f"it cannot be opened ({_one_line(error)})", "correct data.name") from error
    if builder.is_prepared():
        return builder
    place = data.data_dir or str(builder.data_dir)
    if not data.download:
        raise DataError(data.name, "", f"it is not prepared in {place}", "set data.download=true, or data.data_dir")
    _check_network(data, builder)
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:
        rule = f"it cannot be downloaded and prepared ({_one_line(error)})"
        raise DataError(data.name, "", rule, f"copy a prepared one to {place}") from error
    return builder


def _check_network(data: TfdsData, builder: Any) -> None:
    """Fails at once where there is no network; the package itself tries for minutes."""
    hosts = sorted({host for url in builder.url_infos if (host := urlsplit(url).hostname)})
    for host in hosts:
        try:
            socket.getaddrinfo(host, 443)
        except OSError as error:
            rule = f"it is not prepared yet, and {host}, where it comes from, cannot be reached"
            change = "connect the machine, or set data.data_dir to a folder that holds it"
            raise DataError(data.name, "", rule, change) from error


def _default_held_out(data: TfdsData, builder: Any) -> str:
    for name in HELD_OUT_SPLITS:
        if name in builder.info.splits:
            return name
    rule = f"it has no split {' or '.join(HELD_OUT_SPLITS)}"
    raise DataError(data.name, "", rule, 'set data.held_out_split, such as "train[90%:]", and data.split')


def _chosen_features(data: TfdsData, builder: Any, tfds: ModuleType) -> dict[str, Any]:
    found = _flat(builder.info.features)
    usable = {name: feature for name, feature in found.items() if _usable(feature, tfds)}
    # Sorted: the package lists the features of a stored data set in another order each time.
    names = data.features if data.features is not None else tuple(sorted(usable))
    names = (*names, data.target) if data.target and data.target not in names else names
    for name in names:
        if name not in found:
            raise DataError(data.name, "", f"it has no feature {name!r}", f"use some of {', '.join(sorted(found))}")
        if name not in usable:
            rule = f"feature {name!r} ({type(found[name]).__name__}) is no number of a fixed shape"
            raise DataError(data.name, "", rule, f"set data.features to some of {', '.join(sorted(usable))}")
    return {name: usable[name] for name in names}


def _usable(feature: Any, tfds: ModuleType) -> bool:
    if _is_encoded_image(feature, tfds):
        return True
    if not isinstance(feature, tfds.features.Tensor | tfds.features.ClassLabel | tfds.features.Image):
        return False
    return None not in feature.shape and np.dtype(feature.np_dtype).kind in "iufb"


def _is_encoded_image(feature: Any, tfds: ModuleType) -> bool:
    image = isinstance(feature, tfds.features.Image) and not isinstance(feature, tfds.features.LabeledImage)
    return image and np.dtype(feature.np_dtype) == np.uint8 and feature.shape[-1] in (1, 3)


def _flat(features: Any, prefix: str = "") -> dict[str, Any]:
    """Gives the features inside dicts by their path."""
    flat = {}
    for name, feature in features.items():
        inside = hasattr(feature, "items")
        flat.update(_flat(feature, f"{prefix}{name}/") if inside else {f"{prefix}{name}": feature})
    return flat


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Turns paths back into dicts."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        inside = nested
        for folder in folders:
            inside = inside.setdefault(folder, {})
        inside[name] = value
    return nested


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
