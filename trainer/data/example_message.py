"""The message tf.train.Example without TensorFlow, whose import takes seconds in each process that only writes records.

The fields are those of tensorflow/core/example/example.proto and feature.proto. They are declared in a pool of their
own, so that a process that also imports TensorFlow has each of them once.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto


def _example_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def message(name: str) -> descriptor_pb2.DescriptorProto:
        return file.message_type.add(name=name)

    def field(owner: descriptor_pb2.DescriptorProto, name: str, number: int, kind: int, **options: Any) -> None:
        owner.field.add(name=name, number=number, type=kind, **{"label": _FIELD.LABEL_OPTIONAL, **options})

    kinds = {"BytesList": _FIELD.TYPE_BYTES, "FloatList": _FIELD.TYPE_FLOAT, "Int64List": _FIELD.TYPE_INT64}
    for name, kind in kinds.items():
        field(message(name), "value", 1, kind, label=_FIELD.LABEL_REPEATED)
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, of) in enumerate(zip(("bytes_list", "float_list", "int64_list"), kinds, strict=True), 1):
        field(feature, name, number, _FIELD.TYPE_MESSAGE, type_name=f".tensorflow.{of}", oneof_index=0)
    features = message("Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, _FIELD.TYPE_STRING)
    field(entry, "value", 2, _FIELD.TYPE_MESSAGE, type_name=".tensorflow.Feature")
    of_map = ".tensorflow.Features.FeatureEntry"
    field(features, "feature", 1, _FIELD.TYPE_MESSAGE, label=_FIELD.LABEL_REPEATED, type_name=of_map)
    field(message("Example"), "features", 1, _FIELD.TYPE_MESSAGE, type_name=".tensorflow.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


Example: Any = _example_class()
"""The class of the message, as `tf.train.Example`."""
