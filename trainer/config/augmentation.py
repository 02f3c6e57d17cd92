"""Names and amounts of the augmentations that `data.augment` lists: "flip", "shift=2", "noise=0.05"."""

from typing import Annotated, NamedTuple

from pydantic import AfterValidator


class AmountRange(NamedTuple):
    """What an augmentation's amount means and which values it may have. `default` None: it takes no amount."""

    meaning: str
    default: float | None = None
    low: float = 0.0
    high: float = 1.0
    whole: bool = False


AUGMENTATIONS = {
    "flip": AmountRange("mirrors left and right in half of the samples"),
    "flip_vertical": AmountRange("mirrors top and bottom in half of the samples"),
    "shift": AmountRange("moves by up to this many pixels each way, filling with 0", 2, 1, 512, True),
    "crop": AmountRange("cuts out this fraction of each side at a random place and scales it back", 0.9, 0.1, 1.0),
    "resized_crop": AmountRange(
        "cuts out a random share of the area, at least this, 3:4 to 4:3 wide, and scales it back", 0.35, 0.01, 1.0
    ),
    "rand_augment": AmountRange("makes two of fourteen changes, drawn anew for each sample, this strong", 5, 0, 10),
    "brightness": AmountRange("adds one number from [-amount, amount] to a sample", 0.1),
    "contrast": AmountRange("scales the distance from mid-grey by a factor from [1 - amount, 1 + amount]", 0.2),
    "noise": AmountRange("adds Gaussian noise of this standard deviation", 0.05, 0.0, 10.0),
    "erase": AmountRange("sets a random square of this fraction of each side to 0", 0.25, 0.01, 0.9),
    "mixup": AmountRange("adds a share of its neighbour to a sample, drawn from Beta(amount, amount)", 0.2, 0.01, 10.0),
    "cutmix": AmountRange(
        "replaces a rectangle by its neighbour's, its share from Beta(amount, amount)", 1, 0.01, 10.0
    ),
}
MIXES = ("mixup", "cutmix")
"""Those that change the target too; they come last, and a sample undergoes one of them."""


def parse_augmentation(text: str) -> tuple[str, float | None]:
    """Splits "shift=2" into its name and its amount, the default amount where none is given.

    Raises:
        ValueError: The name is unknown, or the amount is not in its range.
    """
    name, equals, amount_text = text.partition("=")
    if name not in AUGMENTATIONS:
        raise ValueError(f"augmentation {name!r} does not exist: use one of {', '.join(AUGMENTATIONS)}")
    allowed = AUGMENTATIONS[name]
    if not equals:
        return name, allowed.default
    if allowed.default is None:
        raise ValueError(f"augmentation {text!r}: {name} takes no amount: write {name!r}")
    try:
        amount = float(amount_text)
    except ValueError:
        amount = float("nan")
    if not allowed.low <= amount <= allowed.high or (allowed.whole and amount != int(amount)):
        number = "a whole number" if allowed.whole else "a number"
        raise ValueError(f"augmentation {text!r}: the amount must be {number} from {allowed.low:g} to {allowed.high:g}")
    return name, amount


def _check(text: str) -> str:
    parse_augmentation(text)
    return text


Augmentation = Annotated[str, AfterValidator(_check)]
