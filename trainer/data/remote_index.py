"""Where each record of a TFRecord shard in an object store begins.

The index that lies beside a shard is taken where there is one. Its time of change is that of another machine and is not
looked at: an index that does not fit shows at the first record, whose checksum then does not match. Else the shard is
read through once. Either way the index is kept in the cache folder.
"""

import numpy as np

from trainer.data.cache_folder import cache_path
from trainer.data.checks import DataError
from trainer.data.record_index import RecordIndex, cached_name, load_index, parse_index, scan, store_in_cache
from trainer.object_store.range_reader import RangeReader
from trainer.object_store.stores import StoredObject

_WINDOW_BYTES = 1 << 20
_NO_TIME = 0


def open_remote_index(one: StoredObject, reader: RangeReader) -> RecordIndex:
    """Gives the index of a shard.

    Raises:
        DataError: The store cannot be read, or the shard is no TFRecord file or has a damaged header.
    """
    folder, _, name = one.url.partition("?")[0].rpartition("/")
    cached = cache_path("record-index") / cached_name(f"{one.url}\n{one.version}", name)
    index = load_index(cached, one.size, _NO_TIME)
    if index is None:
        found = _beside(f"{folder}/.{name}.index", one.size, reader) if "?" not in one.url else None
        boundaries = _scanned(one, reader) if found is None else found.boundaries
        index = RecordIndex(np.asarray(boundaries, np.int64), one.size, _NO_TIME)
        store_in_cache(cached, index)
    return index


def _beside(url: str, size: int, reader: RangeReader) -> RecordIndex | None:
    try:
        stored = reader.store.look(url)
        return parse_index(reader.store.read(stored, 0, stored.size), size)
    except DataError:
        return None


def _scanned(one: StoredObject, reader: RangeReader) -> list[int]:
    window, begin = b"", 0

    def read(length: int, offset: int) -> bytes:
        nonlocal window, begin
        if not begin <= offset <= offset + length <= begin + len(window):
            begin, stop = offset, min(one.size, offset + _WINDOW_BYTES)
            # The next ones too: records are smaller than windows more often than not.
            reader.fetch_ahead([(one, stop, min(one.size, stop + 4 * _WINDOW_BYTES))])
            window = reader.read(one, offset, stop)
        return window[offset - begin : offset - begin + length]

    return scan(one.url, read, one.size)
