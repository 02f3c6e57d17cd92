"""Which files a package may hold, and what is looked at in each before anything is loaded."""

from __future__ import annotations

import json
import re

from delivery.package.folder_walk import FolderWalk
from delivery.package.graph_scan import SAVED_MODEL, ScannedModel, scan_saved_model
from delivery.package.manifest import MANIFEST, SIGNATURE
from delivery.package.refusal import PackageRefused, shown
from delivery.package.training_sample import MOST_BYTES, TRAINING_SAMPLE, check_training_sample
from delivery.package.warmup import WARMUP, check_warmup

DESCRIPTION = "assets.extra/phalanx.json"
MODEL_CARD, MODEL_CARD_TEXT = "assets.extra/model_card.json", "assets.extra/model_card.md"
FINGERPRINT = "fingerprint.pb"
_FIXED = frozenset(
    {SAVED_MODEL, FINGERPRINT, WARMUP, TRAINING_SAMPLE, DESCRIPTION, MODEL_CARD, MODEL_CARD_TEXT, MANIFEST, SIGNATURE}
)
_VARIABLES = re.compile(r"variables/variables\.(index|data-[0-9]{5}-of-[0-9]{5})")
_MOST_SAVED_MODEL = 1 << 30
_MOST_TEXT = 4 << 20
_MOST_WARMUP = 256 << 20


def check_kinds(walk: FolderWalk) -> None:
    """Makes sure that every file is of a kind that packages hold, and that there is a model.

    Raises:
        PackageRefused: One is not, or there is none.
    """
    for path in walk.files:
        if path not in _FIXED and not _VARIABLES.fullmatch(path):
            raise PackageRefused("kind", path, f"{path} is no kind of file that a package holds")
    if SAVED_MODEL not in walk.files:
        raise PackageRefused("missing", SAVED_MODEL, f"{SAVED_MODEL} is missing: {walk.folder} is no package")


def most_bytes(path: str) -> int | None:
    """The size that a file of this name may have; None: any, because it is never read as a whole."""
    limits = {SAVED_MODEL: _MOST_SAVED_MODEL, WARMUP: _MOST_WARMUP, TRAINING_SAMPLE: MOST_BYTES}
    return None if path.startswith("variables/") else limits.get(path, _MOST_TEXT)


def check_contents(files: dict[str, bytes]) -> ScannedModel:
    """Looks into the files that have a structure; nothing of them is loaded or run.

    Args:
        files: Their bytes by path, as they were hashed; at least those of `saved_model.pb`.

    Raises:
        PackageRefused: One is damaged, or holds what it must not.
    """
    scanned = scan_saved_model(files[SAVED_MODEL])
    for path, content in files.items():
        try:
            _check_one(path, content, scanned)
        except PackageRefused:
            raise
        except Exception as error:  # readers of damaged bytes raise whatever they like, and any of it is a refusal
            raise PackageRefused("damaged", path, f"{path} cannot be read ({type(error).__name__})") from None
    return scanned


def _check_one(path: str, content: bytes, scanned: ScannedModel) -> None:
    if path == WARMUP:
        check_warmup(content, scanned.signatures)
    elif path == TRAINING_SAMPLE:
        check_training_sample(content)
    elif path == FINGERPRINT:
        from tensorflow.core.protobuf import fingerprint_pb2

        fingerprint_pb2.FingerprintDef.FromString(content)
    elif path.endswith(".json"):
        if not isinstance(json.loads(content), dict):
            raise PackageRefused("damaged", path, f"{path} holds no JSON object")
    elif path == MODEL_CARD_TEXT and (unseen := _unseen(content.decode("utf-8"))):
        raise PackageRefused("damaged", path, f"{path} holds the invisible character {shown(unseen)}")


def _unseen(text: str) -> str:
    """The first character that would change what a reader of a text sees; "" when there is none."""
    return next((letter for letter in text if not letter.isprintable() and letter not in "\n\t"), "")
