import pytest
from pydantic import TypeAdapter

from trainer.config.byte_size import ByteSize, format_byte_size, parse_byte_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GiB", 2**30), ("500MB", 500_000_000), ("1.5 kib", 1536), ("12", 12), (4096, 4096), ("0", 0), ("2B", 2)],
)
def test_sizes_are_read(text, size):
    assert parse_byte_size(text) == size


@pytest.mark.parametrize("text", ["", "1XB", "-1", -1, "GiB", True, None, 1.5])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r'is not a size: write .* such as "512MB"'):
        parse_byte_size(text)


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 1536, 2**30, 2**40 + 1, 5 * 2**40])
def test_written_sizes_read_back(size):
    assert parse_byte_size(format_byte_size(size)) == size
    adapter = TypeAdapter(ByteSize)
    assert adapter.validate_json(adapter.dump_json(size)) == size
