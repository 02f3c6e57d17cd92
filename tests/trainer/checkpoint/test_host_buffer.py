import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from trainer.checkpoint.host_buffer import ArraySpec, HostBuffer, read_image, specs_of

DTYPES = ["float64", "float32", "float16", "int64", "uint64", "int32", "uint32", "int16", "int8", "uint8", "bool"]


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.sampled_from(DTYPES).flatmap(lambda t: nps.arrays(t, nps.array_shapes(min_dims=0, min_side=0, max_side=4))),
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_arrays_come_back_from_the_image_and_from_the_safetensors_package(arrays):
    buffer = HostBuffer(specs_of(arrays))
    buffer.fill(arrays)
    for read in (read_image(buffer.image), safetensors.numpy.load(bytes(buffer.image))):
        assert read.keys() == arrays.keys()
        for name, array in arrays.items():
            assert read[name].dtype == array.dtype
            assert read[name].shape == array.shape
            assert read[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_floats_that_numpy_lacks_keep_their_bits(dtype):
    array = np.array([1.5, -0.0, 3.0], dtype)
    buffer = HostBuffer(specs_of({"a": array}))
    buffer.fill({"a": array})
    assert read_image(buffer.image)["a"].dtype == array.dtype
    assert read_image(buffer.image)["a"].tobytes() == array.tobytes()


def test_bfloat16_can_be_named():
    assert HostBuffer({"a": ArraySpec((2,), "bfloat16")}).views["a"].dtype == ml_dtypes.bfloat16


def test_every_view_is_aligned_to_its_type():
    buffer = HostBuffer({"a": ArraySpec((3,), "uint8"), "b": ArraySpec((5,), "float64"), "c": ArraySpec((1,), "int16")})
    assert all(view.flags.aligned for view in buffer.views.values())


def test_a_second_filling_changes_only_the_values():
    buffer = HostBuffer({"a": ArraySpec((2,), "float32")})
    buffer.fill({"a": np.array([1, 2], np.float32)})
    before = bytes(buffer.image)
    buffer.views["a"][:] = [3, 4]
    assert bytes(buffer.image)[:-8] == before[:-8]
    assert read_image(buffer.image)["a"].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"b": np.zeros(2, np.float32)}, "differ from the layout"),
        ({"a": np.zeros(3, np.float32)}, r"a is float32\[3\], but the checkpoint is laid out for float32\[2\]"),
        ({"a": np.zeros(2, np.float64)}, r"a is float64\[2\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        HostBuffer({"a": ArraySpec((2,), "float32")}).fill(arrays)


def test_text_cannot_be_stored():
    with pytest.raises(ValueError, match="names has the type"):
        HostBuffer(specs_of({"names": np.array(["a"])}))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "no safetensors header"),
        (b"\xff" * 64, "no safetensors header"),
        (b"\x04" + b"\0" * 7 + b"oops", "not JSON"),
        (safetensors.numpy.save({"a": np.zeros(4)})[:-1], "does not lie within the file"),
    ],
)
def test_bytes_that_are_no_safetensors_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        read_image(image)
