"""Where a record goes: a key that is a function of the seed, the name of its file and its place in it.

A shard takes a range of keys and is sorted by them, so the order of all records is that of random numbers, and who
computes it, in which pieces and how often makes no difference.
"""

import hashlib

_WORD = (1 << 64) - 1


class FileKeys:
    """The keys of the records of one file.

    Args:
        seed: Of the order.
        name: Of the file, see `RawFile.name`.
    """

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=seed.to_bytes(8, "little")).digest()
        self._start = int.from_bytes(digest, "little")

    def key(self, number: int) -> int:
        """The key of the record at `number`, in [0, 2**64): SplitMix64 (Steele, Lea and Flood 2014).

        The same number in no two records of a file; else it may be any one, such as a byte offset.
        """
        z = (self._start + (number + 1) * 0x9E3779B97F4A7C15) & _WORD
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
        return z ^ (z >> 31)


def shard_of(key: int, num_shards: int) -> int:
    """The shard of a key; a larger key is never in an earlier one."""
    return key * num_shards >> 64
