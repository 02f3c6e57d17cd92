"""Numbers of a sum on their way."""

import ml_dtypes
import numpy as np
import pytest

from cluster.process_group.encoding import ENCODINGS, WrongEncoding


@pytest.fixture
def numbers() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=4097) * 10.0 ** rng.integers(-12, 4, 4097)).astype(np.float32)


@pytest.mark.parametrize("name", ENCODINGS)
def test_what_is_settled_comes_back_to_the_bit_beside_what_is_not(name: str, numbers: np.ndarray) -> None:
    encoding, sparse = ENCODINGS[name], numbers.copy()
    sparse[np.abs(sparse) < 1] *= 0
    settled = sparse.copy()
    encoding.settle(settled)
    data = encoding.encode([(settled, True), (numbers, False)])
    first, second = encoding.decode(data, len(numbers), [True, False])
    assert first.tobytes() == settled.tobytes() and second.tobytes() == numbers.tobytes()
    assert len(data) < 0.8 * 2 * numbers.nbytes
    again = settled.copy()
    encoding.settle(again)
    assert again.tobytes() == settled.tobytes()


def test_rounding_is_to_the_nearest(numbers: np.ndarray) -> None:
    special = np.float32([np.inf, -np.inf, -0.0, 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8])
    for name, dtype in (("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16)):
        values = np.concatenate([numbers, special])
        with np.errstate(over="ignore"):
            expected = values.astype(dtype).astype(np.float32)
        ENCODINGS[name].settle(values)
        assert values.tobytes() == expected.tobytes()
        broken = np.uint32([0x7FFFFFFF, 0xFFFFFFFF]).view(np.float32)
        ENCODINGS[name].settle(broken)
        assert np.isnan(broken).all()


@pytest.mark.parametrize("words", [[], [3, 0, 1], [1, 9, 0], [0, 0], [2**32 - 1, 0], [8] + [0] * 16])
def test_bytes_that_no_member_sends_are_refused(words: list[int]) -> None:
    with pytest.raises(WrongEncoding):
        ENCODINGS["sparse"].decode(np.uint32(words).view(np.uint8), 8, [True])
    with pytest.raises(WrongEncoding):
        ENCODINGS["bfloat16"].decode(np.zeros(15, np.uint8), 8, [True])
