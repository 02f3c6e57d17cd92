"""A SavedModel in memory: its signatures, its description for clients, the names of its classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from delivery.saved_model import DESCRIPTION
from delivery.serving.errors import ModelRefused, ServingError
from delivery.serving.signature import Signature

DEFAULT_SIGNATURE = "serving_default"
_INTERNAL = "__saved_model"
_MOST_ORIGIN = 200  # characters


class LoadedModel:
    """A SavedModel that answers.

    Args:
        folder: Holds `saved_model.pb`. Whether it may be loaded is decided before.

    Raises:
        ModelRefused: It cannot be read, or has no signature.

    Attributes:
        signatures: By name.
        signature_defs: As the file has them, for `GetModelMetadata`.
        class_names: Of a classifier; empty where the model has none.
        origin: The run that trained it and its step; empty texts for a model from elsewhere.
        request: Inputs that the default signature has answered in the warm-up; None: it has answered none.
    """

    def __init__(self, folder: Path) -> None:
        try:
            # Referenced as long as this object is: signatures do not keep their variables alive.
            self._loaded: Any = tf.saved_model.load(str(folder))
            self.signature_defs = _signature_defs(folder)
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            raise ModelRefused(
                f"{folder} cannot be loaded: {str(error).splitlines()[0] if str(error) else error!r}"
            ) from error
        self.signatures = {
            name: Signature(
                name, function, self.signature_defs[name].method_name if name in self.signature_defs else ""
            )
            for name, function in self._loaded.signatures.items()
            if not name.startswith(_INTERNAL)
        }
        if not self.signatures:
            raise ModelRefused(f"{folder} has no signature: export it with one, as phalanx export does")
        description = _description(folder)
        names = description.get("class_names")
        self.class_names = tuple(str(name) for name in names) if isinstance(names, list) else ()
        self.request: Mapping[str, np.ndarray] | None = None
        self.origin = {name: str(description.get(name, ""))[:_MOST_ORIGIN] for name in ("run", "step")}

    def signature(self, name: str) -> Signature:
        """The one that a client names; the default for no name.

        Raises:
            ServingError: INVALID_ARGUMENT: there is none of that name.
        """
        found = self.signatures.get(name or DEFAULT_SIGNATURE)
        if found is None:
            raise ServingError(
                "INVALID_ARGUMENT",
                f'Serving signature name: "{(name or DEFAULT_SIGNATURE)[:100]}" not found in signature def: '
                f"the model has {sorted(self.signatures)}",
            )
        return found


def bytes_on_disk(folder: Path) -> int:
    """What the files of a model take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _signature_defs(folder: Path) -> dict[str, Any]:
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    found = dict(saved.meta_graphs[0].signature_def) if saved.meta_graphs else {}
    return {name: value for name, value in found.items() if not name.startswith(_INTERNAL)}


def _description(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError):
        return {}  # a model from elsewhere
    return found if isinstance(found, dict) else {}
