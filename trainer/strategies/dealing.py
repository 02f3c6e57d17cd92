"""Deals the parts of a batch to the members of a group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def deal_parts(num_parts: int, hosts: Sequence[str], held: Sequence[range | None]) -> tuple[range, ...]:
    """Which parts each member computes: consecutive ones, as equally many as there can be.

    Members of one host have neighbouring parts where that is free to choose, so that their sums fit together before
    anything crosses the network. A member that computed the same parts before keeps them: it has their data at hand and
    perhaps their gradients.

    Args:
        num_parts: At least the number of members.
        hosts: The host of each member, by rank.
        held: What each computed in its last group, by rank; None for a newcomer.

    >>> deal_parts(4, ["a", "b"], [None, None])
    (range(0, 2), range(2, 4))
    >>> deal_parts(4, ["b", "a"], [range(2, 4), None])
    (range(2, 4), range(0, 2))
    >>> deal_parts(4, ["a", "b", "a"], [None, None, None])
    (range(0, 2), range(3, 4), range(2, 3))
    """
    size = len(hosts)
    assert num_parts >= size, f"{num_parts} parts cannot be dealt to {size} members"
    each, more = divmod(num_parts, size)
    begins = [i * each + min(i, more) for i in range(size + 1)]
    open_shares = [range(begin, end) for begin, end in itertools.pairwise(begins)]
    dealt: dict[int, range] = {}
    for rank, parts in enumerate(held):
        if parts in open_shares:
            open_shares.remove(parts)
            dealt[rank] = parts
    others = sorted((rank for rank in range(size) if rank not in dealt), key=lambda rank: (hosts[rank], rank))
    dealt.update(zip(others, open_shares, strict=True))
    return tuple(dealt[rank] for rank in range(size))


def pair(hosts: Sequence[str]) -> tuple[int, ...]:
    """One other member for each: on another host, unless one host has more than half of all.

    By turns through the hosts, so that each is the other of one.

    Args:
        hosts: The host of each member, by rank; at least two.

    >>> pair(["a", "a", "b", "b"]), pair(["a", "b", "c"]), pair(["a", "a", "a"])
    ((2, 3, 0, 1), (1, 2, 0), (1, 2, 0))
    """
    order = sorted(range(len(hosts)), key=lambda rank: (hosts[rank], rank))
    largest = max(hosts.count(host) for host in hosts)
    shift = largest if largest < len(hosts) else 1
    checker = {rank: order[(i + shift) % len(order)] for i, rank in enumerate(order)}
    return tuple(checker[rank] for rank in range(len(hosts)))
