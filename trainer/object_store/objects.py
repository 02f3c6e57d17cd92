"""From a pattern in the config to the objects that it names and a reader of them."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from trainer.config.store import StoreConfig
from trainer.data.cache_folder import cache_folder
from trainer.data.checks import DataError
from trainer.object_store.block_cache import BlockCache
from trainer.object_store.patience import PatientStore
from trainer.object_store.range_reader import RangeReader
from trainer.object_store.stores import StoredObject, open_store

_LOOKING_THREADS = 16
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")
_MOST_NAMES = 1_000_000


class FoundObjects(NamedTuple):
    """The objects of a pattern, sorted by URL unless it lists them, and what reads them."""

    objects: list[StoredObject]
    reader: RangeReader


def find_objects(pattern: str, setting: str, config: StoreConfig) -> FoundObjects:
    """Finds what a URL with a pattern names: `*` where the store has lists, `{00000..00063}` and `{a,b}` everywhere.

    Raises:
        DataError: There are none, the store cannot be reached, or a package for it is missing.
    """
    if config.block > config.cache:
        rule = f"data.store.block={config.block} is more than data.store.cache={config.cache}"
        raise DataError(pattern, "", rule, "raise data.store.cache")
    store = PatientStore(open_store(pattern), config.retries, config.timeout_s, config.hedge)
    urls = [url for one in expand_braces(pattern) for url in (store.find(one) if "*" in one or "?" in one else [one])]
    if not urls:
        raise DataError(pattern, "", "no object matches it", f"correct {setting}")
    reader = RangeReader(store, BlockCache(cache_folder("blocks"), config.cache), config.block)
    return FoundObjects(look_at(urls, reader), reader)


def look_at(urls: Sequence[str], reader: RangeReader) -> list[StoredObject]:
    """Asks for the sizes and versions of objects, of several at once.

    Raises:
        DataError: One is not there.
    """
    with ThreadPoolExecutor(_LOOKING_THREADS) as pool:
        return list(pool.map(reader.store.look, urls))


def expand_braces(pattern: str) -> list[str]:
    """The patterns that one with braces stands for.

    >>> expand_braces("a-{08..10}.{x,y}")
    ['a-08.x', 'a-08.y', 'a-09.x', 'a-09.y', 'a-10.x', 'a-10.y']
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    numbers = _NUMBERS.fullmatch(found[1])
    if numbers is None:
        parts = found[1].split(",")
    else:
        first, last = int(numbers[1]), int(numbers[2])
        if not 0 <= last - first < _MOST_NAMES:
            raise DataError(pattern, "", f"{found[0]} are no numbers from low to high", "correct it")
        parts = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    begin, end = pattern[: found.start()], pattern[found.end() :]
    return [f"{begin}{part}{rest}" for part in parts for rest in expand_braces(end)]
