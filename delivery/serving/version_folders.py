"""Which versions of a model there are, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from delivery.repository.model_repository import ModelRepository
from delivery.serving.errors import ModelRefused
from delivery.serving.settings import ModelSettings
from delivery.serving.versions import Routing

MODEL_FILE = "saved_model.pb"


@dataclass(frozen=True)
class Wanted:
    """What should be served.

    Attributes:
        folders: By version.
        routing: Who gets which requests.
    """

    folders: Mapping[int, Path]
    routing: Routing


def wanted(settings: ModelSettings) -> Wanted:
    """Reads a folder; it is a SavedModel, or holds its versions as TensorFlow Serving and a repository keep them.

    Raises:
        ModelRefused: There is no version, or none of the alias that is followed.
        OSError: The folder cannot be read.
    """
    path = settings.path
    if (path / MODEL_FILE).is_file():
        number = int(path.name) if path.name.isascii() and path.name.isdigit() and int(path.name) else 1
        return Wanted({number: path}, Routing(number))
    # Folders appear there by one rename each, so what has a model is whole.
    found = {
        int(entry.name): entry
        for entry in path.iterdir()
        if entry.name.isascii() and entry.name.isdigit() and (entry / MODEL_FILE).is_file()
    }
    if not found:
        raise ModelRefused(f"{path} holds neither {MODEL_FILE} nor a folder 1, 2, ... that does: name a model's folder")
    labels = {alias: version for alias, version in _aliases(path).items() if version in found}
    default = max(found)
    if settings.alias is not None:
        if settings.alias not in labels:
            raise ModelRefused(f"{path} has no alias {settings.alias}: promote a version to it, or follow the newest")
        default = labels[settings.alias]
    canary, shadow = (_version(which, labels, found) for which in (settings.canary, settings.shadow))
    routing = Routing(default, labels, canary, settings.canary_percent, shadow)
    numbers = {default, *labels.values(), *(number for number in (canary, shadow) if number is not None)}
    return Wanted({number: found[number] for number in sorted(numbers)}, routing)


def _version(which: str | None, labels: Mapping[str, int], found: Mapping[int, Path]) -> int | None:
    if which is None:
        return None
    number = int(which) if which.isascii() and which.isdigit() else labels.get(which)
    return number if number in found else None


def _aliases(path: Path) -> dict[str, int]:
    return ModelRepository(path.parent).aliases(path.name) if (path / ".phalanx").is_dir() else {}
