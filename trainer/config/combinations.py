"""Rules that hold between sections: settings that are right alone and impossible together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.config.augmentation import MIXES, parse_augmentation
from trainer.config.data import DataConfig, SyntheticData, TableData
from trainer.config.data_streams import ImagesData, TextData
from trainer.config.elastic import ElasticConfig
from trainer.config.interval import Interval
from trainer.config.mixture import MixtureData
from trainer.config.recommendation import MovielensData
from trainer.config.task import ClassificationTask

if TYPE_CHECKING:
    from trainer.config.training import TrainingConfig

TASK_OF_DATA = {
    "text": "language_modelling",
    "weather": "regression",
    "series": "regression",
    "flights": "classification",
    "lesions": "segmentation",
    "glyphs": "verification",
}
"""Packaged data sets and formats whose samples allow one task only."""

TASK_OF_SYNTHETIC = {
    "tokens": "language_modelling",
    "classification": "classification",
    "regression": "regression",
}
TASK_OF_MOVIELENS = {"retrieval": "retrieval", "ranking": "classification"}
TASK_OF_COLUMN = {"class": "classification", "number": "regression"}


def problems_of(config: TrainingConfig) -> list[str]:
    """One sentence for each impossible combination: its values, the rule and the change to make."""
    return [
        *_task_problems(config),
        *batch_problems(config, config.strategy.known_replicas or 1),
        *_mixing_problems(config),
        *_freeze_problems(config),
        *batch_norm_problems(config),
        *_tied_problems(config),
        *_asynchronous_problems(config),
        *_elastic_problems(config),
        *_schedule_problems(config),
        *_record_problems(config),
    ]


def _task_problems(config: TrainingConfig) -> list[str]:
    model, task = config.model.name, config.task.name
    if ":" in task:
        return []
    problems = []
    samples, required = _samples_for(config.data)
    if required not in (None, task):
        problems.append(
            f"task.name={task} does not fit {samples}, whose samples are for {required}: set task.name={required}"
        )
    elif model == "transformer_lm" and task != "language_modelling":
        problems.append(f"model.name={model} must have task.name=language_modelling, not {task}: set it")
    if ":" not in model and (model == "unet") != (task == "segmentation"):
        wanted = "task.name=segmentation" if model == "unet" else "model.name=unet"
        problems.append(f"task.name={task} does not go with model.name={model}: set {wanted}")
    if ":" not in model and (model == "two_tower") != (task == "retrieval"):
        wanted = "task.name=retrieval" if model == "two_tower" else "model.name=two_tower"
        problems.append(f"task.name={task} does not go with model.name={model}: set {wanted}")
    if task != "verification" and (unseen := _unseen_classes(config.data)):
        problems.append(
            f"task.name={task} cannot measure classes that training never sees, which {unseen} holds out: set "
            f"task.name=verification, or leave it out"
        )
    if task == "masked_lm" and model != "bert" and ":" not in model:
        problems.append(f"task.name={task} must have model.name=bert, not {model}: set it")
    if task == "language_modelling" and model != "transformer_lm" and ":" not in model:
        problems.append(
            f"task.name={task} must have a model of token sequences, not model.name={model}: "
            "set model.name=transformer_lm"
        )
    return problems


def _unseen_classes(data: DataConfig) -> str | None:
    """The setting that holds out whole classes, if one does."""
    if isinstance(data, MixtureData):
        return next((found for source in data.sources if (found := _unseen_classes(source.data))), None)
    return "data.held_out_by=class" if isinstance(data, ImagesData) and data.held_out_by == "class" else None


def _samples_for(data: DataConfig) -> tuple[str, str | None]:
    """The settings that say what the samples are, and the one task that they allow, None where that is open."""
    if isinstance(data, MixtureData):
        return _samples_for(data.sources[0].data)
    if isinstance(data, SyntheticData):
        return f"data.name={data.name} with data.kind={data.kind}", TASK_OF_SYNTHETIC[data.kind]
    if isinstance(data, MovielensData):
        return f"data.name={data.name} with data.kind={data.kind}", TASK_OF_MOVIELENS[data.kind]
    if isinstance(data, TableData):
        return f"data.name={data.name} with data.target_kind={data.target_kind}", TASK_OF_COLUMN[data.target_kind]
    if isinstance(data, TextData) and data.masked is not None:
        return f"data.name={data.name} with data.masked={data.masked:g}", "masked_lm"
    if isinstance(data, TextData) and data.classes:
        return f"data.name={data.name} with data.classes", "classification"
    return f"data.name={data.name}", TASK_OF_DATA.get(data.name)


def batch_problems(config: TrainingConfig, replicas: int, cause: str = "strategy.devices") -> list[str]:
    """What stands against so many equal parts of the global batch.

    Args:
        config: Its train and data sections are read.
        replicas: Over all workers.
        cause: The setting that says how many, e.g. "cluster.workers" where each has one.
    """
    train, batch = config.train, config.data.batch_size
    problems = []
    if train.virtual_workers is not None and train.virtual_workers % replicas:
        problems.append(
            f"{cause}={replicas} must divide train.virtual_workers={train.virtual_workers}: "
            f"set train.virtual_workers to a multiple of {replicas}"
        )
        return problems
    parts = train.virtual_workers or replicas
    part_name = "train.virtual_workers" if train.virtual_workers else cause
    if batch % parts:
        problems.append(
            f"{part_name}={parts} must divide data.batch_size={batch}: "
            f"set data.batch_size to a multiple of {parts * train.accumulate}"
        )
    elif batch // parts % train.accumulate:
        batch_name = f"the batch {batch // parts} of each part" if parts > 1 else f"data.batch_size={batch}"
        problems.append(
            f"train.accumulate={train.accumulate} must divide {batch_name}: "
            f"set data.batch_size to a multiple of {parts * train.accumulate}"
        )
    if config.data.remainder == "keep" and parts * train.accumulate > 1:
        setting = f"{part_name}={parts}" if parts > 1 else f"train.accumulate={train.accumulate}"
        problems.append(
            f"data.remainder=keep leaves a last batch that {setting} need not divide: "
            "set data.remainder=pad, which weights the padding with zero, or drop"
        )
    return problems


def _mixing_problems(config: TrainingConfig) -> list[str]:
    """What stands against training samples that are mixed in pairs."""
    names = [parse_augmentation(text)[0] for text in config.data.augment]
    mixes = [name for name in names if name in MIXES]
    if not mixes:
        return []
    problems = []
    setting = f"data.augment={list(config.data.augment)}"
    if config.task.name != "classification":
        problems.append(
            f"{setting} mixes classes and must have task.name=classification, not {config.task.name}: "
            f"leave out {' and '.join(mixes)}"
        )
    if isinstance(config.task, ClassificationTask):
        weighs = {
            f"task.focal_gamma={config.task.focal_gamma:g}": config.task.focal_gamma,
            f"task.class_weights={config.task.class_weights}": config.task.class_weights,
        }
        problems += [
            f"{setting} gives a sample shares of two classes and does not go with {weighing}, which goes by the one "
            f"class of a sample: leave out {' and '.join(mixes)}, or {weighing.partition('=')[0]}"
            for weighing, is_set in weighs.items()
            if is_set
        ]
    if names[-len(mixes) :] != mixes:
        problems.append(f"{setting} changes samples after they are mixed: write {' and '.join(mixes)} at the end")
    if len(mixes) > len(set(mixes)):
        problems.append(f"{setting} has {mixes[0]} twice, and a sample is mixed once: leave one of them out")
    parts = config.train.virtual_workers or config.strategy.known_replicas or 1
    if config.data.batch_size % parts == 0 and config.data.batch_size // parts % 2:
        problems.append(
            f"{setting} mixes neighbours within each of the {parts} parts of a batch, and a part has "
            f"{config.data.batch_size // parts} samples: set data.batch_size to a multiple of {2 * parts}"
        )
    return problems


def _freeze_problems(config: TrainingConfig) -> list[str]:
    if config.strategy.name == "parameter_server" and any(entry.until for entry in config.freeze):
        return [
            "freeze with until does not go with strategy.name=parameter_server, which sends weights in pieces: set "
            "until to null, or choose another strategy.name"
        ]
    return []


def batch_norm_problems(config: TrainingConfig) -> list[str]:
    """What stands against statistics of the whole batch; a strategy that "auto" chooses is asked again."""
    train, name = config.train, config.strategy.name
    if not train.synchronize_batch_norm:
        return []
    setting, off = "train.synchronize_batch_norm=true", "set train.synchronize_batch_norm=false"
    problems = []
    if name in ("parameter_server", "horovod"):
        problems.append(
            f"{setting} does not go with strategy.name={name}, whose workers exchange nothing while they compute "
            f"gradients: choose another strategy.name, or {off}"
        )
    if train.accumulate > 1:
        problems.append(
            f"{setting} does not go with train.accumulate={train.accumulate}, whose micro-batches are computed one "
            f"after the other: set train.accumulate=1, or {off}"
        )
    if config.elastic.outer_every is not None:
        problems.append(
            f"{setting} does not go with elastic.outer_every={config.elastic.outer_every}, whose replicas take their "
            f"steps alone: remove it, or {off}"
        )
    if train.xla and train.xla_scope in ("step", "loop") and name not in ("one_device", "tpu"):
        problems.append(
            f"{setting} exchanges statistics in the middle of a step, which XLA cannot compile with strategy.name="
            f"{name}, and train.xla_scope={train.xla_scope}: set train.xla_scope=auto, which compiles the update"
        )
    if name in ("mirrored", "multi_worker_mirrored", "tpu") and any(entry.until for entry in config.freeze):
        problems.append(
            f"freeze with until makes branches of a step, in which {setting} cannot exchange statistics with "
            f"strategy.name={name}: set until to null, strategy.name=elastic, or {off}"
        )
    return problems


def _tied_problems(config: TrainingConfig) -> list[str]:
    tied, name = config.tied, config.strategy.name
    if tied is None:
        return []
    problems = []
    if config.warm_start is None:
        problems.append(
            "tied keeps zeros and equal weights, and weights that begin at random have none: set warm_start.path to a "
            "sparse or clustered model, or remove tied"
        )
    if name == "parameter_server":
        problems.append(
            "tied does not go with strategy.name=parameter_server, which sends weights in pieces: choose another "
            "strategy.name"
        )
    problems += [
        f"tied does not go with elastic.{key}={config.elastic.given[key]}, {why}: remove one of them"
        for key, why in (
            ("shard_optimizer", "whose workers update one share of the weights each"),
            ("outer_every", "whose outer optimizer moves the weights too"),
        )
        if key in config.elastic.given
    ]
    if tied.equal and (config.train.xla or name == "tpu"):
        setting = "train.xla=true" if config.train.xla else "strategy.name=tpu"
        problems.append(
            f"tied.equal=true finds out at each step how many weights differ, which XLA cannot compile, and {setting}: "
            "set train.xla=false on another strategy"
        )
    return problems


def _asynchronous_problems(config: TrainingConfig) -> list[str]:
    """What cannot be had where each worker computes whole steps on whatever weights it finds."""
    if not config.strategy.is_asynchronous:
        return []
    alone = "strategy.synchronous=false, where the steps of several workers overlap"
    problems = []
    if config.precision == "mixed_float16":
        problems.append(
            f"precision=mixed_float16 has one loss scale for all steps and does not go with {alone}: set "
            "strategy.synchronous=true or precision=mixed_bfloat16"
        )
    if config.train.on_nan == "rollback":
        problems.append(
            f"train.on_nan=rollback leaves out the batches of one step and does not go with {alone}: set "
            "strategy.synchronous=true or train.on_nan=stop"
        )
    return problems


def _elastic_problems(config: TrainingConfig) -> list[str]:
    name = config.strategy.name
    if name in ("elastic", "auto"):
        return [
            *_compression_problems(config.elastic),
            *_overlap_problems(config),
            *(_shard_problems(config) if config.elastic.shard_optimizer else []),
            *_outer_problems(config),
            *_nccl_problems(config.elastic),
        ]
    return [
        f"elastic.{key}={value} does not go with strategy.name={name}, whose workers do not come and go: remove it, or "
        "set strategy.name=elastic"
        for key, value in config.elastic.given.items()
    ]


def _compression_problems(elastic: ElasticConfig) -> list[str]:
    problems = []
    if "top_k" in elastic.given and elastic.compression != "top_k":
        problems.append(
            f"elastic.top_k={elastic.top_k} goes with elastic.compression=top_k, and not with {elastic.compression}: "
            "set elastic.compression=top_k, or remove elastic.top_k"
        )
    others = {
        "outer_every": "whose replicas send weights, and those rarely",
        "shard_optimizer": "whose weights travel in every step, and whole",
    }
    problems += [
        f"elastic.compression={elastic.compression} does not go with elastic.{key}={elastic.given[key]}, {why}: remove "
        "one of them"
        for key, why in others.items()
        if key in elastic.given and elastic.compression != "none"
    ]
    return problems


def _overlap_problems(config: TrainingConfig) -> list[str]:
    elastic, train = config.elastic, config.train
    if elastic.overlap != "always":
        return []
    problems = []
    if train.xla and train.xla_scope in ("step", "loop"):
        problems.append(
            f"train.xla_scope={train.xla_scope} computes all gradients in one program, of which none is there before "
            "its end, and does not go with elastic.overlap=always: set train.xla_scope=update"
        )
    if elastic.compression == "top_k":
        problems.append(
            "elastic.compression=top_k looks at all gradients of a part before any of them travels and does not go "
            "with elastic.overlap=always: set elastic.compression=bfloat16, or remove elastic.overlap"
        )
    if train.synchronize_batch_norm:
        problems.append(
            "train.synchronize_batch_norm=true exchanges statistics while gradients are computed, in an order with "
            "which that of sums beside them cannot be agreed upon, and does not go with elastic.overlap=always: remove "
            "one of them"
        )
    if elastic.outer_every is not None:
        problems.append(
            f"elastic.outer_every={elastic.outer_every} adds up replicas, and not gradients, and does not go with "
            "elastic.overlap=always: remove one of them"
        )
    return problems


def _nccl_problems(elastic: ElasticConfig) -> list[str]:
    reasons = {
        "compression": "which the hosts do",
        "overlap": "which the hosts do",
        "outer_every": "whose replicas are added up by the hosts",
    }
    return [
        f"elastic.nccl={elastic.nccl} adds up on GPUs what no host has seen and does not go with "
        f"elastic.{key}={elastic.given[key]}, {why}: set elastic.nccl=auto, or remove elastic.{key}"
        for key, why in reasons.items()
        if elastic.nccl in ("exact", "fast") and key in elastic.given
    ]


def _shard_problems(config: TrainingConfig) -> list[str]:
    setting = "elastic.shard_optimizer=true"
    problems = []
    if config.precision == "mixed_float16":
        problems.append(
            f"precision=mixed_float16 has a loss scale, which {setting} does not go with: set precision=mixed_bfloat16"
        )
    if any(entry.until for entry in config.freeze):
        problems.append(f"freeze with until does not go with {setting}: set until to null, or remove {setting}")
    return problems


def _outer_problems(config: TrainingConfig) -> list[str]:
    elastic, train = config.elastic, config.train
    if elastic.outer_every is None:
        return [
            f"elastic.{key}={elastic.given[key]} is of the outer optimizer, which elastic.outer_every=null leaves out: "
            f"set elastic.outer_every=100, or remove elastic.{key}"
            for key in ("outer_learning_rate", "outer_momentum")
            if key in elastic.given
        ]
    setting = f"elastic.outer_every={elastic.outer_every}"
    problems = []
    if elastic.check_every is not None:
        problems.append(
            f"elastic.check_every={elastic.check_every} compares what workers compute in one step and does not go with "
            f"{setting}: remove one of them"
        )
    if elastic.shard_optimizer:
        problems.append(
            f"elastic.shard_optimizer=true does not go with {setting}, where each replica needs all of the optimizer's "
            "state in every step: remove one of them"
        )
    if config.precision == "mixed_float16":
        problems.append(
            f"precision=mixed_float16 has one loss scale for all replicas and does not go with {setting}: set "
            "precision=mixed_bfloat16"
        )
    if train.log_every % elastic.outer_every:
        problems.append(
            f"{setting} must divide train.log_every={train.log_every}, because the replicas know of each other only "
            f"then: set train.log_every to a multiple of {elastic.outer_every}"
        )
    if train.steps is not None and (problem := round_problem(elastic, train.steps, f"train.steps={train.steps}")):
        problems.append(problem)
    return problems


def round_problem(elastic: ElasticConfig, total_steps: int, length: str) -> str | None:
    """Why a training cannot end between two outer steps; what one by epochs has of steps is known with its data.

    Args:
        elastic: its section.
        total_steps: of the training.
        length: the same for the message.
    """
    every = elastic.outer_every
    if every is None or total_steps % every == 0:
        return None
    return (
        f"elastic.outer_every={every} must divide {length}, because a training ends with an outer step: set "
        f"train.steps to {max(every, total_steps // every * every)}"
    )


def _schedule_problems(config: TrainingConfig) -> list[str]:
    warmup = config.optimizer.schedule.warmup
    if warmup is None:
        return []
    length, name = _length_in(config, warmup)
    if length is not None and warmup.value >= length:
        return [
            f"optimizer.schedule.warmup={warmup} must be shorter than the training, {name}: "
            "shorten the warm-up or train longer"
        ]
    return []


def _length_in(config: TrainingConfig, interval: Interval) -> tuple[float | None, str]:
    if interval.unit == "st":
        return config.train.steps, f"train.steps={config.train.steps}"
    return config.train.epochs, f"train.epochs={config.train.epochs or 0:g}"


def _record_problems(config: TrainingConfig) -> list[str]:
    problems = []
    if config.checkpoint.best_metric is not None and config.evaluate.every is None:
        problems.append(
            f"checkpoint.best_metric={config.checkpoint.best_metric} must have evaluations to choose by, but "
            'evaluate.every is null: set evaluate.every="1ep"'
        )
    if config.train.steps is not None:
        problems += profile_problems(config, config.train.steps, f"train.steps={config.train.steps}")
    return problems


def profile_problems(config: TrainingConfig, total_steps: int, length: str) -> list[str]:
    """Why the steps to profile cannot be; what a training by epochs has of steps is known with its data.

    Args:
        config: of the training.
        total_steps: that it has.
        length: the same for the message.
    """
    profile = config.observe.profile_steps
    if profile is None or profile[1] <= total_steps:
        return []
    return [
        f"observe.profile_steps={list(profile)} must lie within the training, {length}: choose steps from 1 to "
        f"{total_steps}"
    ]
