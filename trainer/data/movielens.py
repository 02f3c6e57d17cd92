"""The source `movielens`: 100,000 ratings of films, from MovieLens-100k (Harper and Konstan 2015).

The newest ratings of each person are held out, as they would be for a recommendation that is made today.

- `kind: retrieval`: a sample is somebody with a film that they rated, whatever they thought of it. The held-out split
  holds what `trainer.tasks.retrieval` needs besides the ratings to be found.
- `kind: ranking`: a sample is a rating, `liked` or not. Beside what is known of people and films there are the means of
  all earlier training ratings of that person and of that film: earlier, because a mean that holds the sample itself
  would tell its label.

Shape legend: N ratings, P people, I films, G genres.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import tensorflow as tf

from trainer.config.recommendation import MovielensData
from trainer.data.checks import DataError
from trainer.data.held_out import Split
from trainer.data.memory import MemorySource
from trainer.data.places import find_path
from trainer.data.source import Feature, Schema, SkippedRecords
from trainer.data.table_encoding import positions_of

# As many ratings of the mean of all count before somebody's own, so that one rating is not taken for a taste.
PRIOR = 5.0
CLASSES = ("disliked", "liked")


@dataclass(frozen=True)
class Ratings:
    """All ratings, the oldest first, with what is known of people and films.

    Attributes:
        user: Number of the person, from 1 on, int32 [N].
        item: Number of the film, from 1 on, int32 [N].
        stars: float64 [N].
        users: Features of each person by name, [P + 1, ...]; row 0 is nobody.
        items: Features of each film by name, [I + 1, ...]; row 0 is none.
        features: What they are.
    """

    user: np.ndarray
    item: np.ndarray
    stars: np.ndarray
    users: Mapping[str, np.ndarray]
    items: Mapping[str, np.ndarray]
    features: Mapping[str, Feature]


class WithWhatIsKnown(MemorySource):
    """A held-out split whose samples with the target 0 have weight 0: they are known, and measured nowhere."""

    may_skip = True

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """The samples at `index`, and their `sample_weight`."""
        batch = super().read(index)
        return {**batch, "sample_weight": tf.cast(batch["to_find"], tf.float32)}


def open_movielens(data: MovielensData, split: Split) -> MemorySource:
    """Opens a split of the ratings.

    Raises:
        DataError: The package or the folder with the ratings is missing, or a file in it is not what it should be.
    """
    folder = find_path(data.path, "data.path")
    ratings = _read(folder)
    held_out = newest(ratings.user, data.held_out_fraction)
    opened = _retrieval if data.kind == "retrieval" else _ranking
    return opened(data, ratings, held_out, split)


def newest(user: np.ndarray, fraction: float) -> np.ndarray:
    """The last ratings of each person, bool [N]: at least one, and never all.

    Args:
        user: Who rated, the oldest rating first, [N].
        fraction: How many of each person's ratings.
    """
    order = np.argsort(user, kind="stable")
    _, start, count = np.unique(user[order], return_index=True, return_counts=True)
    place = np.arange(len(user)) - np.repeat(start, count)
    wanted = np.minimum(np.maximum(np.round(fraction * count), 1), count - 1)
    held_out = np.zeros(len(user), bool)
    held_out[order] = place >= np.repeat(count - wanted, count)
    return held_out


def earlier_means(
    number: np.ndarray, stars: np.ndarray, counts: np.ndarray, mean: float
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the ratings of the same person (or film) before each one, and how many they were; float64 [N] each.

    Args:
        number: Of the person or the film, the oldest rating first, [N].
        stars: [N].
        counts: Which ratings are counted, bool [N].
        mean: What `PRIOR` ratings more are taken to be.
    """
    order = np.argsort(number, kind="stable")
    _, start, size = np.unique(number[order], return_index=True, return_counts=True)

    def before(values: np.ndarray) -> np.ndarray:
        total = np.cumsum(values[order]) - values[order]
        out = np.empty(len(values))
        out[order] = total - np.repeat(total[start], size)
        return out

    num, total = before(counts.astype(np.float64)), before(np.where(counts, stars, 0.0))
    return (total + PRIOR * mean) / (num + PRIOR), num


def _retrieval(data: MovielensData, ratings: Ratings, held_out: np.ndarray, split: Split) -> MemorySource:
    num_items = len(next(iter(ratings.items.values())))
    times = np.bincount(ratings.item[~held_out], minlength=num_items) + 1.0
    log_share = np.log(times / times.sum()).astype(np.float32)
    training, wanted = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    features = {**ratings.features, "log_share": Feature((), "float32"), "to_find": Feature((), "int32", num_values=2)}
    if split == "train":
        user, item = ratings.user[training], ratings.item[training]
        to_find = np.zeros(len(user), np.int32)
    else:
        # What is to be found stands first; behind it what is known: the training ratings, and each film once.
        rows = np.concatenate([wanted, training])
        films = np.arange(1, num_items, dtype=np.int32)
        user = np.concatenate([ratings.user[rows], np.zeros_like(films)])
        item = np.concatenate([ratings.item[rows], films])
        to_find = (np.arange(len(user)) < len(wanted)).astype(np.int32)
    arrays = _rows(ratings, user, item) | {"log_share": log_share[item], "to_find": to_find}
    kind = MemorySource if split == "train" else WithWhatIsKnown
    return _source(kind, data, Schema(features, "to_find", len(user)), arrays)


def _ranking(data: MovielensData, ratings: Ratings, held_out: np.ndarray, split: Split) -> MemorySource:
    mean = float(ratings.stars[~held_out].mean())
    numbers: dict[str, np.ndarray] = {}
    for side, number in (("user", ratings.user), ("item", ratings.item)):
        numbers[f"{side}_mean"], count = earlier_means(number, ratings.stars, ~held_out, mean)
        numbers[f"{side}_ratings"] = np.log1p(count)
    features = dict(ratings.features)
    for name, values in numbers.items():
        of_training = values[~held_out]
        features[name] = Feature((), "float32", mean=float(of_training.mean()), std=float(of_training.std()) or 1.0)
    features["liked"] = Feature((), "int32")
    rows = np.flatnonzero(held_out if split == "held_out" else ~held_out)
    arrays = _rows(ratings, ratings.user[rows], ratings.item[rows])
    arrays |= {name: values[rows].astype(np.float32) for name, values in numbers.items()}
    arrays["liked"] = (ratings.stars[rows] >= data.liked_from).astype(np.int32)
    return _source(MemorySource, data, Schema(features, "liked", len(rows), 2, CLASSES), arrays)


def _rows(ratings: Ratings, user: np.ndarray, item: np.ndarray) -> dict[str, np.ndarray]:
    people = {name: values[user] for name, values in ratings.users.items()}
    return people | {name: values[item] for name, values in ratings.items.items()}


def _source(
    kind: type[MemorySource], data: MovielensData, schema: Schema, arrays: Mapping[str, np.ndarray]
) -> MemorySource:
    def place(index: int) -> tuple[str, str]:
        return data.path, f"person {arrays['user_id'][index]} and film {arrays['item_id'][index]}"

    return kind(schema, arrays, place, skipped=SkippedRecords(data.skip_bad_records))


@functools.lru_cache(maxsize=1)
def _read(folder: Path) -> Ratings:
    ratings = _table(folder, "inter", ("user_id", "item_id", "rating", "timestamp"))
    people = _table(folder, "user", ("user_id", "age", "gender", "occupation"))
    films = _table(folder, "item", ("item_id", "release_year", "class"))
    features: dict[str, Feature] = {}
    users = {
        "user_id": _categories(features, "user_id", people["user_id"]),
        "user_gender": _categories(features, "user_gender", people["gender"]),
        "user_occupation": _categories(features, "user_occupation", people["occupation"]),
        "user_age": _numbers(features, "user_age", people["age"]),
    }
    items = {
        "item_id": _categories(features, "item_id", films["item_id"]),
        "item_year": _numbers(features, "item_year", films["release_year"]),
        "item_genres": _genres(features, films["class"]),
    }
    user = positions_of(ratings["user_id"], features["user_id"].vocabulary or ()) + 1
    item = positions_of(ratings["item_id"], features["item_id"].vocabulary or ()) + 1
    stars, times = (ratings[name].cast(pa.float64()).to_numpy() for name in ("rating", "timestamp"))
    for names, number in (("user_id", user), ("item_id", item)):
        if not number.all():
            row = int(np.flatnonzero(number == 0)[0])
            rule = f"{names} {ratings[names][row].as_py()!r} is not in the file of {names.partition('_')[0]}s"
            raise DataError(folder / f"{folder.name}.inter", f"row {row + 1}", rule, "add it there")
    order = np.lexsort((item, user, times))
    return Ratings(user[order], item[order], stars[order], users, items, features)


def _table(folder: Path, kind: str, columns: tuple[str, ...]) -> pa.Table:
    """A file of tab-separated text; its header names columns as `name:type`."""
    file = folder / f"{folder.name}.{kind}"
    try:
        table = pyarrow.csv.read_csv(
            file,
            parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True),
        )
    except (pa.ArrowException, OSError) as error:
        raise DataError(file, "", f"it cannot be read ({error})", "correct data.path") from error
    table = table.rename_columns([name.partition(":")[0] for name in table.column_names])
    for name in columns:
        if name not in table.column_names:
            raise DataError(file, "", f"it lacks the column {name!r}", "correct data.path")
    if not table.num_rows:
        raise DataError(file, "", "it holds no rows", "correct data.path")
    return table.select(columns)


def _categories(features: dict[str, Feature], name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Numbers of names, int32 [rows + 1]; 0 in the first row, which is nobody."""
    values = column.drop_null().unique()
    vocabulary = tuple(pa.array(sorted(values.to_pylist()), values.type).cast(pa.string()).to_pylist())
    features[name] = Feature((), "int32", vocabulary, num_values=len(vocabulary) + 1)
    return np.concatenate([[0], positions_of(column, vocabulary) + 1]).astype(np.int32)


def _numbers(features: dict[str, Feature], name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Numbers, float32 [rows + 1]; the mean where one is missing, and in the first row, which is nobody.

    A few films have the "V" of a video where their year should be: that is a missing one too.
    """
    values = np.array([_number(text) for text in column.cast(pa.string()).to_pylist()])
    mean, std = float(np.nanmean(values)), float(np.nanstd(values))
    features[name] = Feature((), "float32", mean=mean, std=std if std > 0 else 1.0)
    return np.concatenate([[mean], np.where(np.isnan(values), mean, values)]).astype(np.float32)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _genres(features: dict[str, Feature], column: pa.ChunkedArray) -> np.ndarray:
    """1 for each genre of a film, float32 [I + 1, G]."""
    of_film = [(text or "").split() for text in column.cast(pa.string()).to_pylist()]
    names = sorted({genre for genres in of_film for genre in genres})
    features["item_genres"] = Feature((len(names),), "float32")
    return np.array([[0.0] * len(names), *([name in genres for name in names] for genres in of_film)], np.float32)
