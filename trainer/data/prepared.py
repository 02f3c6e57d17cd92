"""The source `prepared`: the records of a folder that `phalanx data prepare` has made, read at random."""

import glob
from dataclasses import replace

from trainer.config.data_streams import RecordFeature, TfrecordData
from trainer.config.prepared import PreparedData
from trainer.config.store import StoreConfig
from trainer.data.checks import DataError
from trainer.data.held_out import Split
from trainer.data.places import find_path
from trainer.data.source import Feature
from trainer.data.tfrecord import RecordSource
from trainer.object_store.objects import find_objects
from trainer.object_store.stores import is_url
from trainer.preparation.manifest import MANIFEST, Manifest, parse_manifest, read_manifest
from trainer.preparation.preparation import PREFIX, UNFINISHED
from trainer.preparation.request import Contents


class PreparedSource(RecordSource):
    """The records of one split, with the names of classes and categories, and the statistics of numbers.

    Args:
        data: What to read of the shards.
        split: "train" or "held_out".
        contents: What the manifest says about them.
    """

    def __init__(self, data: TfrecordData, split: Split, contents: Contents):
        super().__init__(data, split)
        features = {name: _known(name, feature, contents) for name, feature in self.schema.features.items()}
        names = contents.class_names if data.target == contents.target else None
        self.schema = replace(self.schema, features=features, class_names=names)


def open_prepared(data: PreparedData, split: Split) -> PreparedSource:
    """Opens a split of the folder.

    Raises:
        DataError: The folder is not prepared, or not all of it is there, or it has no such feature.
    """
    manifest = _manifest(data.path, "data.path", data.store)
    other = _manifest(data.held_out_path, "data.held_out_path", data.store) if data.held_out_path else None
    if other is not None and (
        other.contents.features != manifest.contents.features
        or other.contents.vocabularies != manifest.contents.vocabularies
        or other.contents.class_names != manifest.contents.class_names
    ):
        rule = f"its features, categories or classes are others than those of {data.path}"
        raise DataError(data.held_out_path, "", rule, "prepare both from raw files with the same columns and names")
    return PreparedSource(_records(data, manifest, other), split, manifest.contents)


def _manifest(path: str, setting: str, store: StoreConfig) -> Manifest:
    if is_url(path):
        objects, reader = find_objects(f"{path.rstrip('/')}/{MANIFEST}", setting, store)
        try:
            return parse_manifest(reader.store.read(objects[0], 0, objects[0].size), objects[0].url)
        finally:
            reader.close()
    folder = find_path(path, setting)
    manifest = read_manifest(folder)
    if manifest is None:
        begun = (folder / UNFINISHED).exists()
        rule = "its preparation is not finished" if begun else f"it has no {MANIFEST}"
        again, name = "give the command that began it again", f"name a folder of phalanx data prepare in {setting}"
        raise DataError(folder, "", rule, again if begun else name)
    for shard in manifest.shards:
        file = folder / shard.name
        if not file.exists() or file.stat().st_size != shard.bytes:
            rule = f"it is not there with the {shard.bytes} bytes that {MANIFEST} says"
            raise DataError(file, "", rule, "copy the folder again, or prepare it again")
    return manifest


def _records(data: PreparedData, manifest: Manifest, held_out: Manifest | None) -> TfrecordData:
    contents = manifest.contents
    target = data.target or contents.target
    names = data.features or tuple(contents.features)
    names = (*names, target) if target and target not in names else names
    features = {name: _declared(name, data, contents) for name in names}
    num_classes = data.num_classes
    if num_classes is None and target == contents.target:
        num_classes = contents.num_classes
    if target and features[target].kind == "integer" and not features[target].shape and num_classes is None:
        rule = f"the number of classes of {target!r} is not in its {MANIFEST}"
        raise DataError(data.path, "", rule, "set data.num_classes")
    common = data.model_dump(include={"batch_size", "shuffle", "remainder", "skip_bad_records"})
    return TfrecordData(
        **common,
        pattern=_pattern(data.path, "data.path", manifest),
        held_out_pattern=_pattern(data.held_out_path or "", "data.held_out_path", held_out) if held_out else None,
        held_out_fraction=data.held_out_fraction,
        features=features,
        image_size=data.image_size,
        resize=data.resize,
        target=target,
        num_classes=num_classes,
        store=data.store,
    )


def _declared(name: str, data: PreparedData, contents: Contents) -> RecordFeature:
    if name not in contents.features:
        rule = f"it has no feature {name!r}; it has {', '.join(map(repr, contents.features))}"
        raise DataError(data.path, "", rule, "correct data.features or data.target")
    feature = contents.features[name]
    if feature.kind == "image":
        return feature.model_copy(update={"channels": data.channels})
    if name in contents.vocabularies:
        # 0 stands for a category that is not known, as in every source of tables.
        return feature.model_copy(update={"offset": 1, "num_values": len(contents.vocabularies[name]) + 1})
    return feature


def _known(name: str, feature: Feature, contents: Contents) -> Feature:
    if name in contents.vocabularies:
        return replace(feature, vocabulary=contents.vocabularies[name])
    if name in contents.statistics:
        mean, std = contents.statistics[name]
        return replace(feature, mean=mean, std=std)
    return feature


def _pattern(path: str, setting: str, manifest: Manifest) -> str:
    if is_url(path):  # by number, since not every store can list what it has
        count = len(manifest.shards)
        pattern = f"{path.rstrip('/')}/{PREFIX}-{{00000..{count - 1:05d}}}-of-{count:05d}.tfrecord"
    else:
        pattern = f"{glob.escape(str(find_path(path, setting).absolute()))}/{PREFIX}-*"
    # What is in a path to a TfrecordData is read as a config is: a $ that belongs to it is written twice.
    return pattern.replace("$", "$$")
