"""What the key/value cache of `phalanx generate` is worth: tokens a second with it and without, in turns.

python -m benchmarks.generation [--quick] [--json FILE]

Transformers with weights as they are drawn, since speed does not depend on what they have learned: one with a key and
value head for each query head, one with a fourth of them. XLA compiles both ways. Both choose the likeliest token, and
the benchmark refuses to report if they ever choose different ones. The first turn of each, which compiles, is not
counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, print_machine, target_line, write_result
from delivery.generation import Sampling, generated
from trainer.config.model import TransformerLmModel
from trainer.config.task import LanguageModellingTask
from trainer.data.source import Feature, Schema
from trainer.models.decoding import CachedDecoder, Decoder, WholeWindowDecoder
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

VOCABULARY, PROMPT = 2048, 32


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        context: Of the models.
        tokens: To generate in each turn.
        turns: Of each way, after one that is not counted.
    """

    context: int
    tokens: int
    turns: int


FULL, QUICK = Effort(context=512, tokens=192, turns=3), Effort(context=128, tokens=64, turns=2)
MODELS = {
    "8 key/value heads": TransformerLmModel(layers=4, width=256, heads=8),
    "2 key/value heads": TransformerLmModel(layers=4, width=256, heads=8, kv_heads=2),
}


def decoders_of(config: TransformerLmModel, context: int) -> dict[str, Decoder]:
    """Both ways of asking one model."""
    tokens = Feature((context + 1,), "int32", num_values=VOCABULARY)
    schema = Schema({"tokens": tokens}, None, 1, VOCABULARY)
    model = build_model(config, schema, build_task(LanguageModellingTask(), schema), seed=0)
    return {"cached": CachedDecoder(model, config), "whole window": WholeWindowDecoder(model, compiled=True)}


def measure(effort: Effort) -> dict[str, Any]:
    """Tokens a second of each turn, by model and way."""
    found: dict[str, Any] = {}
    for name, config in MODELS.items():
        decoders = decoders_of(config, effort.context)
        rates: dict[str, list[float]] = {way: [] for way in decoders}
        for turn in range(effort.turns + 1):
            texts = []
            for way, decoder in decoders.items():
                started = time.perf_counter()
                texts.append(list(generated(decoder, range(1, PROMPT + 1), effort.tokens, Sampling(temperature=0))))
                if turn:
                    rates[way].append(len(texts[-1]) / (time.perf_counter() - started))
            if texts[0] != texts[1]:
                raise SystemExit(f"{name}: the two ways chose different tokens, so their speeds mean nothing")
        found[name] = rates
    return {"effort": vars(effort), "tokens_per_s": found}


def gain(rates: dict[str, list[float]]) -> float:
    """How many times as fast the cache is, by the medians."""
    return statistics.median(rates["cached"]) / statistics.median(rates["whole window"])


def targets_of(figures: dict[str, Any]) -> list[str]:
    """One line a target."""
    return [
        target_line(f"cache_gain_{name.split()[0]}_heads", gain(rates), ">=3")
        for name, rates in figures["tokens_per_s"].items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    machine = describe_machine(["python", "-m", "benchmarks.generation", *(arguments or sys.argv[1:])])
    print_machine(machine)
    figures = measure(QUICK if options.quick else FULL)
    print(f"\n{'tokens/s':<20}{'cached':>10}{'whole window':>14}{'gain':>8}")
    for name, rates in figures["tokens_per_s"].items():
        cached, whole = (statistics.median(rates[way]) for way in ("cached", "whole window"))
        print(f"  {name:<18}{cached:>10.0f}{whole:>14.0f}{cached / whole:>8.1f}")
    targets = targets_of(figures)
    print("", *targets, sep="\n")
    if options.json:
        write_result(options.json, machine, figures, targets)


if __name__ == "__main__":
    main()
