import gzip
import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.checks import DataError
from trainer.data.record_format import payload_of
from trainer.data.record_index import RecordIndex, open_index
from trainer.data.record_writer import write_shards

PAYLOADS = [b"", b"one", b"two" * 1000, b"\0\0"]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A shard as TensorFlow itself writes it."""
    path = tmp_path / "train-0"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    return path


def payloads(path: Path, index: RecordIndex) -> list[bytes | None]:
    content = path.read_bytes()
    bounds = index.boundaries.tolist()
    return [payload_of(content[start:end]) for start, end in itertools.pairwise(bounds)]


def index_file(shard: Path) -> Path:
    return shard.with_name(f".{shard.name}.index")


def test_finds_what_tensorflow_wrote(shard: Path) -> None:
    index = open_index(shard)
    assert payloads(shard, index) == PAYLOADS
    assert not index.cut_off


def test_an_empty_shard_has_no_records(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, "none", [])
    assert open_index(shard).num_records == 0


def test_is_stored_under_a_name_that_a_pattern_of_shards_does_not_match(shard: Path) -> None:
    open_index(shard)
    assert list(shard.parent.glob("train-*")) == [shard]
    assert index_file(shard).exists()


def test_is_read_again_instead_of_built(shard: Path) -> None:
    built = open_index(shard)
    status = shard.stat()
    # The same size and time with other content: only a stored index still finds the records.
    shard.write_bytes(b"x" * status.st_size)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert np.array_equal(open_index(shard).boundaries, built.boundaries)


def test_is_built_again_for_a_shard_that_changed(shard: Path) -> None:
    open_index(shard)
    write_shards(shard.parent, "other", [b"longer than before"])[0].rename(shard)
    assert payloads(shard, open_index(shard)) == [b"longer than before"]


def test_is_built_again_when_only_the_time_changed(shard: Path) -> None:
    open_index(shard)
    length = shard.stat().st_size
    shard.write_bytes(b"x" * length)
    os.utime(shard, ns=(0, 0))
    with pytest.raises(DataError, match="does not begin like a TFRecord file"):
        open_index(shard)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_index_is_built_again(shard: Path, damage: str) -> None:
    built = open_index(shard)
    stored = index_file(shard)
    content = stored.read_bytes()
    damaged = {
        "flip": content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
        "cut": content[:-8],
        "empty": b"",
        "foreign": b"[]\n[]\n[]",
    }
    stored.write_bytes(damaged[damage])
    assert np.array_equal(open_index(shard).boundaries, built.boundaries)
    assert stored.read_bytes() == content


def test_lies_in_the_cache_folder_when_the_shard_is_read_only(read_only_folder, monkeypatch) -> None:
    folder, read_only = read_only_folder
    (shard,) = write_shards(folder, "train", [b"one", b"two"])
    with tempfile.TemporaryDirectory() as cache:
        os.chmod(cache, 0o777)
        monkeypatch.setenv("PHALANX_CACHE_DIR", cache)
        with read_only():
            assert open_index(shard).num_records == 2
            (stored,) = Path(cache).rglob("*.index")
            written = stored.stat().st_ino
            assert open_index(shard).num_records == 2
            assert stored.stat().st_ino == written
    assert list(folder.iterdir()) == [shard]


def test_says_which_cache_folder_is_read_only(read_only_folder, monkeypatch) -> None:
    folder, read_only = read_only_folder
    (shard,) = write_shards(folder, "train", [b"one"])
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(folder / "cache"))
    with read_only(), pytest.raises(DataError, match=r"cache/record-index: .*cannot be made.*PHALANX_CACHE_DIR"):
        open_index(shard)
    (folder / "cache" / "record-index").mkdir(parents=True)
    with read_only(), pytest.raises(DataError, match=r"cache/record-index: .*cannot be stored.*PHALANX_CACHE_DIR"):
        open_index(shard)


def test_knows_a_shard_that_is_cut_off(shard: Path) -> None:
    content = shard.read_bytes()
    for length in (len(content) - 1, len(content) - 17, len(content) - 18):
        shard.write_bytes(content[:length])
        index = open_index(shard)
        assert index.cut_off == (length != len(content) - 18)
        assert payloads(shard, index) == PAYLOADS[:3]


def test_a_damaged_header_is_named(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    at = 16 + 16 + 3
    content[at] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=rf"train-0, record 2: .*does not match at byte {at}") as caught:
        open_index(shard)
    assert "restore the file" in str(caught.value)


def test_a_compressed_shard_is_refused(shard: Path) -> None:
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(DataError, match=r"compressed with gzip.*write it without compression"):
        open_index(shard)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-7: the file does not exist"):
        open_index(tmp_path / "train-7")
