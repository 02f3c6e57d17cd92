import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.example_message import Example
from trainer.data.record_writer import encode_example

NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3)
FRACTIONS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=3)
VALUES = NUMBERS | FRACTIONS | st.binary(max_size=5) | st.lists(st.binary(max_size=3), min_size=1, max_size=3)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_the_bytes_are_those_of_tensorflow(features) -> None:
    example = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        kind = {bytes: "bytes_list", int: "int64_list", float: "float_list"}[type(values[0])]
        getattr(example.features.feature[name], kind).value.extend(values)
    encoded = encode_example(features)
    assert encoded == example.SerializeToString(deterministic=True)
    assert Example.FromString(encoded).SerializeToString(deterministic=True) == encoded
