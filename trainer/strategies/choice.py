"""Which strategy a run takes, and why, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.config.combinations import batch_problems
from trainer.config.strategy import StrategyConfig
from trainer.config.training import TrainingConfig

# Below this, what embeddings cost on the network is not worth a coordinator.
_MANY_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Choice:
    """A strategy and the reason for it.

    Attributes:
        config: As in the run's config, but never "auto".
        why: A sentence for the person.
        is_automatic: Whether the config left it open.
    """

    config: StrategyConfig
    why: str
    is_automatic: bool

    @property
    def facts(self) -> dict[str, str]:
        """For programs."""
        return {"name": self.config.name, "why": self.why}


def choose_strategy(config: TrainingConfig, workers: int | None, gpus: int) -> Choice:
    """The strategy of a config on these machines.

    Args:
        config: Its strategy may be "auto".
        workers: Of the group that this process belongs to; None for a process alone.
        gpus: Of this one.
    """
    strategy = config.strategy
    if strategy.name != "auto":
        return Choice(strategy, f"strategy.name={strategy.name} is set", False)
    devices = strategy.devices or gpus
    if workers is not None and gpus > 1:
        name, why = "multi_worker_mirrored", f"each of the {workers} workers has {gpus} GPUs"
    elif workers is not None:
        name, why = "elastic", f"there is a group of {workers} workers"
    elif strategy.devices is not None and strategy.devices > 1:
        name, why = "mirrored", f"strategy.devices={strategy.devices} says so"
    elif devices > 1 and (problems := batch_problems(config, devices, "the number of GPUs")):
        name, why = "one_device", f"of {devices} GPUs one is used: {problems[0]}"
    elif devices > 1:
        name, why = "mirrored", f"this machine has {devices} GPUs"
    else:
        name, why = "one_device", f"one worker trains on one {'GPU' if gpus else 'CPU'}"
    # Validated, because a setting of another strategy may not go with this one.
    chosen = StrategyConfig.model_validate({**strategy.model_dump(), "name": name})
    return Choice(chosen, f"strategy {name}, because {why}", True)


def with_suggestion(choice: Choice, embedding_bytes: int, all_bytes: int) -> Choice:
    """The choice, with a hint where most of what travels in every step would be embeddings.

    Args:
        choice: Made without the model.
        embedding_bytes: Of the weights that are tables of embeddings.
        all_bytes: Of all trainable weights.
    """
    if not choice.is_automatic or choice.config.name not in ("elastic", "multi_worker_mirrored"):
        return choice
    if embedding_bytes < _MANY_BYTES or 2 * embedding_bytes < all_bytes:
        return choice
    share = round(100 * embedding_bytes / all_bytes)
    hint = (
        f"; {share}% of the weights are embeddings, of which strategy.name=parameter_server sends only the rows in use"
    )
    return Choice(choice.config, choice.why + hint, True)
