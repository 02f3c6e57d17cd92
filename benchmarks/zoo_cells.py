"""What the zoo's matrix consists of: which config goes with which strategy, how it runs there, what it is to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.config import load_config

STRATEGIES = {
    "one_device": ["strategy.name=one_device"],
    "mirrored": ["strategy.name=mirrored", "strategy.devices=2"],
    "multi_worker_mirrored": ["strategy.name=multi_worker_mirrored", "cluster.workers=2"],
    "horovod": ["strategy.name=horovod", "cluster.workers=2"],
    "elastic": ["strategy.name=elastic", "cluster.workers=2"],
    "parameter_server": ["strategy.name=parameter_server", "cluster.workers=3"],
}
# What a cell's run changes in its config: data that is there, no run that it begins from, and a smaller batch where two
# hundred steps of the config's own take a minute and more on 2 cores. The table says so.
ALONE: Mapping[str, list[str]] = {
    "resnet50": [
        "data.name=mnist_sample", "model.input_size=32", "data.batch_size=16", "train.accumulate=1",
        "optimizer.learning_rate=0.001", "optimizer.schedule.warmup=null",
    ],
    "lesions_unet": ["data.batch_size=8"],
    "mnist_convnext": ["data.batch_size=16"],
    "mnist_efficientnet": ["data.batch_size=16"],
    "digits_transfer": ["warm_start=null"],
    "shakespeare_bert": ["data.batch_size=8"],
    "shakespeare_genre": ["warm_start=null", "data.tokenizer=subword", "data.batch_size=8"],
    "shakespeare_lm": ["data.batch_size=8"],
    "shakespeare_moe": ["data.batch_size=8"],
}  # fmt: skip
# What a whole run changes in its config, where its own data is not here and its own length takes days.
WHOLE: Mapping[str, list[str]] = {
    "resnet50": [
        "data.name=mnist_sample", "data.augment=[shift=2]", "data.batch_size=64", "model.input_size=32",
        "train.accumulate=1", "train.epochs=5", "optimizer.learning_rate=0.002", "optimizer.schedule.warmup=10st",
    ],
}  # fmt: skip
# Whose run a config begins from.
AFTER: Mapping[str, str] = {"digits_transfer": "mnist_mobilenet", "shakespeare_genre": "shakespeare_bert"}
# The metric that each config's head states, and how good it must be: a little less than the head says.
STATED: Mapping[str, tuple[str, str]] = {
    "mnist": ("accuracy", ">=0.93"),
    "mnist_large": ("accuracy", ">=0.93"),
    "digits_cnn": ("accuracy", ">=0.97"),
    "flights_tabular": ("auc", ">=0.90"),
    "flights_wide_and_deep": ("pr_auc", ">=0.90"),
    "german_credit": ("auc", ">=0.80"),
    "movielens_retrieval": ("recall_10", ">=0.10"),
    "movielens_dlrm": ("auc", ">=0.77"),
    "mnist_mobilenet": ("accuracy", ">=0.95"),
    "mnist_efficientnet": ("accuracy", ">=0.94"),
    "mnist_convnext": ("accuracy", ">=0.95"),
    "mnist_vit": ("accuracy", ">=0.91"),
    "digits_transfer": ("accuracy", ">=0.95"),
    "resnet50": ("accuracy", ">=0.95"),
    "lesions_unet": ("mean_iou", ">=0.85"),
    "shakespeare_lm": ("perplexity", "<=75"),
    "shakespeare_moe": ("perplexity", "<=66"),
    "shakespeare_packed": ("perplexity", "<=70"),
    "shakespeare_bert": ("perplexity", "<=30"),
    "shakespeare_genre": ("accuracy", ">=0.72"),
    "glyphs_verification": ("auc", ">=0.99"),
    "weather_tcn": ("mae", "<=4.5"),
    "weather_transformer": ("mae", "<=4.6"),
}
_TABLES = ("flights_tabular", "flights_wide_and_deep", "german_credit", "movielens_dlrm", "movielens_retrieval")
_CHECKPOINTS = 5  # in a run


@dataclass(frozen=True)
class Cell:
    """A config with a strategy."""

    config: str
    strategy: str

    @property
    def name(self) -> str:
        """Of its run."""
        return f"{self.config}-{self.strategy}"


def cells_of(configs: Sequence[str], strategies: Sequence[str]) -> list[Cell]:
    """Those that suit each other: parameter servers are for tables, whose embeddings they keep."""
    return [
        Cell(config, strategy)
        for config in configs
        for strategy in strategies
        if strategy != "parameter_server" or config in _TABLES
    ]


def settings_of(cell: Cell, steps: int, folder: Path, name: str) -> list[str]:
    """The overrides of a run of so many steps."""
    every = max(1, steps // _CHECKPOINTS)
    config = load_config(f"configs/{cell.config}.yaml", ALONE.get(cell.config, []))
    own = ["data.remainder=drop"] if config.data.remainder == "keep" else []
    if config.train.xla:
        own.append(f"train.compile_cache={folder / 'programs' / cell.name}")  # the same bits, compiled once
    if getattr(config.optimizer.schedule, "warmup", None) is not None:
        own.append(f"optimizer.schedule.warmup={max(1, steps // 10)}st")  # theirs may be longer than this run
    return [
        *ALONE.get(cell.config, []), *own, *STRATEGIES[cell.strategy],
        f"run.dir={folder}", f"run.name={name}", f"train.steps={steps}", "train.epochs=null",
        f"train.log_every={max(1, steps // 20)}", f"checkpoint.every={every}st", "checkpoint.max_overhead=null",
        "checkpoint.best_metric=null", "evaluate.every=null", "observe.tensorboard=false", "export.enabled=false",
    ]  # fmt: skip


def whole_settings(config: str, folder: Path) -> list[str]:
    """The overrides of a run to the config's end, in a folder that also has the run that it begins from."""
    begins_from = [f"warm_start.path={folder / AFTER[config]}"] if config in AFTER else []
    changes = WHOLE.get(config, [])
    return [
        *begins_from,
        *changes,
        *STRATEGIES["one_device"],
        f"run.dir={folder}",
        f"run.name={config}",
        "export.enabled=false",
    ]


def in_order(configs: Sequence[str]) -> list[str]:
    """Those whose result is stated, each after the one that it begins from, which is added where it is missing."""
    ordered: list[str] = []
    for config in configs:
        needed = [AFTER[config], config] if config in AFTER else [config]
        ordered += [name for name in needed if name in STATED and name not in ordered]
    return ordered
