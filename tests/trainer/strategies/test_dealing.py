"""Parts of a batch are dealt once each, whoever comes and goes, and survivors keep theirs where they can."""

import random

from trainer.strategies.dealing import deal_parts


def test_each_part_is_dealt_once_and_no_member_has_two_more_than_another():
    rng = random.Random(0)
    for _ in range(500):
        size = rng.randint(1, 6)
        num_parts = rng.randint(size, 12)
        hosts = [rng.choice("abc") for _ in range(size)]
        held = [rng.choice([None, range(begin := rng.randint(0, 11), begin + rng.randint(1, 4))]) for _ in range(size)]
        dealt = deal_parts(num_parts, hosts, held)
        assert sorted(part for parts in dealt for part in parts) == list(range(num_parts))
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_whoever_takes_a_dead_members_place_takes_its_parts():
    before = deal_parts(8, ["a", "a", "b", "b"], [None] * 4)
    # Survivors keep their order of ranks, and the newcomer comes last.
    after = deal_parts(8, ["a", "b", "b", "a"], [before[1], before[2], before[3], None])
    assert after == (before[1], before[2], before[3], before[0])


def test_members_of_one_host_have_neighbouring_parts():
    assert deal_parts(4, ["b", "a", "b", "a"], [None] * 4) == (range(2, 3), range(0, 1), range(3, 4), range(1, 2))
