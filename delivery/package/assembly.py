"""Makes a package of an export that nobody sees yet: warm-up requests, model card, training sample, manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from delivery.package.file_kinds import MODEL_CARD, MODEL_CARD_TEXT
from delivery.package.held_out_metrics import finite, held_out_metrics
from delivery.package.model_card import card_text, model_card
from delivery.package.sealing import seal
from delivery.package.served_answers import Answered, ask
from delivery.package.signing_keys import SigningKey, time_text
from delivery.package.training_sample import TRAINING_SAMPLE, write_training_sample
from delivery.package.warmup import WARMUP, write_warmup
from delivery.saved_model import Unpublished
from trainer.config.training import TrainingConfig
from trainer.data.source import Source
from trainer.observe.metrics_log import read_metrics
from trainer.run_folder import RunFolder
from trainer.session import Session

_MOST_SAMPLE_BYTES = 16 << 20


@dataclass(frozen=True)
class PackageRequest:
    """What an export's package is made of.

    Attributes:
        config: Of the run.
        folder: Of the run.
        session: Holds task and training data.
        held_out: The split that the run is evaluated on.
        name: Of the model.
        version: Of the model.
        key: Signs the package; None: it stays unsigned.
    """

    config: TrainingConfig
    folder: RunFolder
    session: Session
    held_out: Source
    name: str
    version: int
    key: SigningKey | None = None

    def complete(self, export: Unpublished) -> None:
        """Adds the files that make a package of an export.

        Raises:
            DataError: A sample cannot be read.
            KeyRefused: The key has expired.
            OSError: The folder cannot be written.
        """
        now = datetime.now(timezone.utc)
        task, served = self.session.task, export.served
        requests = {
            signature: {key: given.encode(export.samples[key]) for key, given in inputs.items()}
            for signature, inputs in served.inputs_of.items()
        }
        write_warmup(export.path / WARMUP, self.name, requests)
        self._write_training_sample(export)
        measured = held_out_metrics(task, ask(export.loaded, served, task, self.held_out), served.class_names)
        card = model_card(
            self.config,
            self.session.schema,
            name=self.name,
            version=self.version,
            created=time_text(now),
            facts=export.facts,
            evaluation=evaluation_at(self.folder, self.session.state.step),
            held_out=measured,
            num_held_out=self.held_out.schema.num_samples,
            environment=self.folder.read_environment(),
        )
        (export.path / MODEL_CARD).write_text(json.dumps(card, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (export.path / MODEL_CARD_TEXT).write_text(card_text(card), encoding="utf-8")
        seal(export.path, self.name, self.version, self.key, now)

    def _write_training_sample(self, export: Unpublished) -> None:
        parts: list[Answered] = []
        size = 0
        for part in ask(export.loaded, export.served, self.session.task, self.session.source):
            parts.append(part)
            size += part.bytes
            if size >= _MOST_SAMPLE_BYTES:
                break
        if not parts:
            return  # every sample that was looked at has been left out
        raw, answers = (
            {name: np.concatenate([getattr(part, side)[name] for part in parts]) for name in getattr(parts[0], side)}
            for side in ("raw", "answers")
        )
        most = max(1, int(len(next(iter(raw.values()))) * min(1.0, _MOST_SAMPLE_BYTES / max(size, 1))))
        write_training_sample(
            export.path / TRAINING_SAMPLE,
            {name: values[:most] for name, values in raw.items()},
            {name: values[:most] for name, values in answers.items()},
        )


def evaluation_at(folder: RunFolder, step: int) -> dict[str, Any] | None:
    """The run's evaluation of this very step; None where there was none."""
    lines = [line for line in read_metrics(folder.metrics) if "split" in line and line.get("step") == step]
    if not lines:
        return None
    return {
        key: finite(value) if isinstance(value, float) else value for key, value in lines[-1].items() if key != "time"
    }
