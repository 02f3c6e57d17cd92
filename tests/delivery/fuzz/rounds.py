"""Runs a check on made-up examples: the same few in every run of the suite, or new ones for minutes (`make fuzz`)."""

import faulthandler
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from benchmarks.machine import describe_machine, write_result

_ROUND = 200  # examples that share a seed
_HANGS_S = 120.0  # then the process ends, with its stacks; the seed of its round has been printed


@dataclass
class Rounds:
    """How much is tried.

    Attributes:
        seconds: For each check; 0: only the examples that the suite tries, the same every time.
        seed: Of the first round; the later ones count on.
        tried: Examples by check.
    """

    seconds: float = 0.0
    seed: int = 0
    tried: dict[str, int] = field(default_factory=dict)

    def run(self, name: str, check: Callable[[Any], None], examples: SearchStrategy[Any], few: int) -> None:
        """Tries examples; what fails is made smaller, and shown so that it can be pasted into a test.

        Args:
            name: Of the check, for the count.
            check: Raises for an example that is not treated as it must be.
            examples: What is tried.
            few: How many in the suite.
        """

        def counted(example: Any) -> None:
            self.tried[name] = self.tried.get(name, 0) + 1
            faulthandler.dump_traceback_later(_HANGS_S, exit=True)
            try:
                check(example)
            finally:
                faulthandler.cancel_dump_traceback_later()

        common = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
        if not self.seconds:
            settings(max_examples=few, derandomize=True, **common)(given(examples)(counted))()
            return
        end, number = time.monotonic() + self.seconds, self.seed
        while time.monotonic() < end:
            print(f"{name}: --fuzz-seed {number}", flush=True)
            phases = (Phase.generate, Phase.target, Phase.shrink)
            one = settings(max_examples=_ROUND, phases=phases, **common)(given(examples)(counted))
            seed(number)(one)()
            number += 1

    def write(self, path: Path) -> None:
        """What was tried, as JSON, added to what an earlier run has written there; nothing of a run that failed."""
        checks = json.loads(path.read_text())["figures"] if path.exists() else {}
        for name, examples in self.tried.items():
            before = checks.get(name, {"seconds": 0.0, "examples": 0, "first_seeds": []})
            checks[name] = {
                "seconds": before["seconds"] + self.seconds,
                "examples": before["examples"] + examples,
                "first_seeds": [*before["first_seeds"], self.seed],
            }
        write_result(path, describe_machine(["make", "fuzz"]), checks, [])
