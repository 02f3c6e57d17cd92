"""Text from a trained language model, one token after the other.

Shape legend: V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from delivery.run_export import CheckpointChoice, restored_session
from trainer.config.data_streams import TextData
from trainer.config.model import TransformerLmModel
from trainer.config.training import TrainingConfig
from trainer.data.text import open_text
from trainer.data.tokenizer import END_OF_DOCUMENT
from trainer.models.decoding import CachedDecoder, Decoder, WholeWindowDecoder
from trainer.run_folder import RunFolder


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: Divides the logits: below 1 the likely tokens become likelier. 0: always the likeliest.
        top_k: Choose among this many likeliest tokens; None: among all.
        seed: Decides the draws: that of the n-th token is a function of the seed and n.

    Raises:
        ValueError: A number is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"--temperature={self.temperature:g} must be a number of at least 0: 1 draws as the model says, 0 "
                "takes the likeliest token"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"--top-k={self.top_k} must be at least 1: raise it, or leave it out")
        if self.seed < 0:
            raise ValueError(f"--seed={self.seed} must be at least 0: choose another one")

    def choose(self, logits: np.ndarray, number: int) -> int:
        """The token that comes next.

        Args:
            logits: Float32 [V].
            number: How many were chosen before.

        Raises:
            ValueError: The logits are not finite.
        """
        if not np.isfinite(logits).all():
            raise ValueError("the model's answers are not finite: choose an earlier --checkpoint")
        if self.temperature == 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self.temperature
        if self.top_k is not None and self.top_k < len(scaled):
            # Of equal logits the first tokens, so that there are never more than k.
            scaled[np.argsort(-scaled, kind="stable")[self.top_k :]] = -np.inf
        shares = np.cumsum(np.exp(scaled - scaled.max()))
        drawn = np.random.default_rng([self.seed, number]).random() * shares[-1]
        return int(np.searchsorted(shares, drawn, side="right"))


def generated(decoder: Decoder, prompt: Sequence[int], most: int, sampling: Sampling) -> Iterator[int]:
    """Tokens that follow a prompt, until the end of a document.

    A decoder looks back on its context and no further: when that is full, its second half is read again and the text
    goes on from there.

    Args:
        decoder: What says which token comes next.
        prompt: 1 to `decoder.context` tokens.
        most: Tokens to give.
        sampling: How each is chosen.
    """
    window = list(prompt)
    logits = decoder.read(window)
    for number in range(most):
        token = sampling.choose(logits, number)
        if token == END_OF_DOCUMENT:
            return
        yield token
        if number + 1 == most:
            return
        is_full = len(window) == decoder.context
        if is_full:
            window = window[len(window) - decoder.context // 2 :]
        window.append(token)
        logits = decoder.read(window) if is_full else decoder.append(token)


def generate_text(
    config: TrainingConfig,
    folder: RunFolder,
    prompt: str,
    *,
    tokens: int,
    sampling: Sampling,
    checkpoint: CheckpointChoice = "last",
) -> str:
    """The prompt, and what a run's model writes after it.

    Args:
        config: Of the run.
        folder: Of the run.
        prompt: What the text begins with.
        tokens: Most tokens to add; the end of a document ends the text before.
        sampling: How each is chosen.
        checkpoint: The one to read.

    Raises:
        RunFolderError: The run has no such checkpoint.
        DataError: The texts of the run, whose tokenizer is needed, are missing.
        ValueError: The run predicts no tokens of text, or the request does not fit its model.
    """
    data = text_of(config)
    if not prompt or "\0" in prompt:
        rule = "holds the character NUL, which no text does" if prompt else "is empty"
        raise ValueError(f"--prompt {rule}: give what the text begins with")
    session = restored_session(config, folder, checkpoint)
    weights = session.state.evaluation_weights(config.export.ema and config.train.ema is not None)
    for variable, value in zip(session.model.trainable_variables, weights, strict=True):
        variable.assign(value.read_value())
    model = session.config.model
    if isinstance(model, TransformerLmModel):
        decoder: Decoder = CachedDecoder(session.model, model)
    else:
        decoder = WholeWindowDecoder(session.model)
    tokenizer = open_text(data, "train").tokenizer
    begun = tokenizer.encode(prompt).tolist()
    if len(begun) > decoder.context:
        raise ValueError(
            f"--prompt has {len(begun)} tokens, and the model looks back on data.context={decoder.context}: shorten it"
        )
    if sampling.top_k is not None and sampling.top_k > decoder.vocabulary:
        raise ValueError(
            f"--top-k={sampling.top_k} must be at most {decoder.vocabulary}, the tokens there are: lower it"
        )
    return tokenizer.decode([*begun, *generated(decoder, begun, tokens, sampling)])


def text_of(config: TrainingConfig) -> TextData:
    """The text that a run was trained on.

    Raises:
        ValueError: The run does not predict the next token of a text.
    """
    if config.task.name != "language_modelling":
        raise ValueError(
            f"task.name={config.task.name} does not predict the next token: generate from a run with "
            "task.name=language_modelling"
        )
    if not isinstance(config.data, TextData):
        raise ValueError(
            f"data.name={config.data.name} has no tokenizer to turn a prompt into tokens: generate from a run with "
            "data.name=text"
        )
    return config.data
