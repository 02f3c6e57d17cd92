"""Thousands of random lives of a slice against the emulated Cloud TPU API, and what they come to.

python -m pytest tests/chaos/test_tpu_lives.py --chaos-long

PHALANX_TPU_LIVES, PHALANX_TPU_FIRST and PHALANX_TPU_SECONDS change number, first seed and limit.
"""

import collections
import os
import random
import time

from tests.cluster.tpu.conftest import clock, emulator, provider, server  # noqa: F401
from tests.cluster.tpu.scenarios import live


def test_lives_leave_nothing_behind_and_make_nothing_twice(emulator, clock, provider, capsys, chaos_long):  # noqa: F811
    number = int(os.environ.get("PHALANX_TPU_LIVES", "4000" if chaos_long else "12"))
    first = int(os.environ.get("PHALANX_TPU_FIRST", str(random.SystemRandom().randrange(10**9))))
    totals = collections.Counter()
    limit = time.monotonic() + float(os.environ.get("PHALANX_TPU_SECONDS", "inf"))
    for seed in range(first, first + number):
        if time.monotonic() > limit:
            break
        life = live(seed, emulator, clock, provider)
        assert life.left == [], f"seed {seed} leaves {life.left}"
        assert life.together <= 1, f"seed {seed} had {life.together} slices at once"
        totals.update(lives=1, made=life.made, faults=life.faults, requests=life.requests, **{life.ended: 1})
    with capsys.disabled():
        print(f"\nfrom seed {first}: {dict(totals)}, most at once 1, left behind 0")
