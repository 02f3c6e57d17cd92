from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.data.ratings import NUM_ITEMS, NUM_USERS, PER_USER, write_ratings
from trainer.config.recommendation import MovielensData
from trainer.data.checks import DataError
from trainer.data.memory import MemorySource
from trainer.data.movielens import PRIOR, earlier_means, newest, open_movielens
from trainer.tasks.ranking import roc_auc


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("ratings") / "small")


def everything(source: MemorySource) -> dict[str, np.ndarray]:
    batch = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    return {name: values.numpy() for name, values in batch.items()}


def opened(kind: str, split, **options) -> tuple[MemorySource, dict[str, np.ndarray]]:
    source = open_movielens(MovielensData.model_validate({"kind": kind, **options}), split)
    return source, everything(source)


def test_the_newest_ratings_of_each_person_are_held_out():
    rng = np.random.default_rng(0)
    user = rng.choice([1, 2, 3, 7], 200, p=[0.5, 0.3, 0.18, 0.02])
    held_out = newest(user, 0.3)
    for one in np.unique(user):
        own = held_out[user == one]
        count = min(max(round(0.3 * len(own)), 1), len(own) - 1)
        np.testing.assert_array_equal(own, np.arange(len(own)) >= len(own) - count)


def test_means_are_those_of_earlier_training_ratings():
    rng = np.random.default_rng(0)
    number, stars = rng.integers(1, 5, 60), rng.integers(1, 6, 60).astype(float)
    counted = rng.random(60) < 0.7
    means, counts = earlier_means(number, stars, counted, 3.5)
    for i in range(60):
        before = stars[:i][(number[:i] == number[i]) & counted[:i]]
        assert counts[i] == len(before)
        assert means[i] == pytest.approx((before.sum() + PRIOR * 3.5) / (len(before) + PRIOR))


def test_retrieval_holds_what_is_to_be_found_and_what_is_known(folder: Path):
    source, train = opened("retrieval", "train", path=str(folder))
    held_source, held = opened("retrieval", "held_out", path=str(folder))
    assert source.schema.features.keys() == held_source.schema.features.keys() and "sample_weight" not in train
    assert len(train["user_id"]) == NUM_USERS * PER_USER * 4 // 5 and not train["to_find"].any()
    np.testing.assert_array_equal(held["sample_weight"], held["to_find"])
    wanted, known = (held["to_find"] == value for value in (1, 0))
    assert wanted[: NUM_USERS * PER_USER // 5].all() and wanted.sum() == NUM_USERS * PER_USER // 5
    pairs = [set(zip(part["user_id"][rows], part["item_id"][rows], strict=True)) for part, rows in
             ((train, slice(None)), (held, known), (held, wanted))]  # fmt: skip
    catalogue = {(0, film) for film in range(1, NUM_ITEMS + 1)}
    assert pairs[1] == pairs[0] | catalogue and not pairs[2] & pairs[0]
    shares = {int(item): share for item, share in zip(held["item_id"], held["log_share"], strict=True)}
    count = np.bincount(train["item_id"], minlength=NUM_ITEMS + 1)
    assert shares[5] - shares[6] == pytest.approx(np.log((count[5] + 1) / (count[6] + 1)), abs=1e-5)


def test_features_belong_to_the_person_and_the_film(folder: Path):
    source, batch = opened("retrieval", "held_out", path=str(folder))
    features = source.schema.features
    numbers = {name: features[name].vocabulary or () for name in ("user_id", "item_id", "user_gender")}
    for i in (0, 17, 44):
        user, item = (numbers[name][batch[name][i] - 1] for name in ("user_id", "item_id"))
        assert batch["user_age"][i] == 20 + int(user)
        assert numbers["user_gender"][batch["user_gender"][i] - 1] == "MF"[int(user) % 3 > 0]
        assert batch["item_genres"][i].tolist() == ([0, 1, 1] if int(item) % 4 else [1, 0, 0])
    year = features["item_year"]
    assert year.mean is not None and batch["item_year"][np.isin(batch["item_id"], [3, 5])] == pytest.approx(year.mean)


def test_ranking_says_who_likes_what(folder: Path):
    source, batch = opened("ranking", "train", path=str(folder))
    films = np.array(source.schema.features["item_id"].vocabulary, int)[batch["item_id"] - 1]
    np.testing.assert_array_equal(batch["liked"], films <= NUM_ITEMS // 2)
    assert source.schema.class_names == ("disliked", "liked")
    stars_as_likes, _ = opened("ranking", "train", path=str(folder), liked_from=5)
    assert 0 < everything(stars_as_likes)["liked"].mean() < batch["liked"].mean()


def test_the_real_ratings_and_what_their_means_say():
    source, train = opened("ranking", "train")
    _, held = opened("ranking", "held_out")
    assert len(train["liked"]) + len(held["liked"]) == 100_000
    assert len(source.schema.features["item_id"].vocabulary or ()) == 1682
    assert 0.5 < train["liked"].mean() < 0.6
    auc = roc_auc(held["user_mean"] + held["item_mean"], held["liked"] == 1)
    assert auc == pytest.approx(0.759, abs=0.001)  # what docs/models/recommendation.md compares with


def test_a_rating_of_an_unknown_film_is_located(tmp_path: Path):
    broken = write_ratings(tmp_path / "broken")
    with (broken / "broken.inter").open("a") as file:
        file.write("1\t999\t5\t880000000\n")
    with pytest.raises(DataError, match=r"broken\.inter, row 301: item_id 999 is not in the file of items"):
        opened("ranking", "train", path=str(broken))
