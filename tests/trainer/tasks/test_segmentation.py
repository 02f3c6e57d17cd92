import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import losses, small_config, small_session
from trainer.config.segmentation import LesionsData, SegmentationTask
from trainer.config.vision_models import UnetModel
from trainer.data.augment import build_augmentation
from trainer.data.counter_random import sample_keys
from trainer.data.lesions import CLASSES, open_lesions
from trainer.data.source import Feature, Schema
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

SIDE = 16
LESIONS = LesionsData(num_samples=40, held_out_samples=12, size=SIDE)
SCHEMA = Schema(
    {"image": Feature((SIDE, SIDE, 1), "float32"), "mask": Feature((SIDE, SIDE), "int32", num_values=3)}, "mask", 40, 3
)
TRAINING = {
    "model": {"name": "unet", "filters": [4, 8]},
    "task": {"name": "segmentation"},
    "data": {"name": "lesions", "num_samples": 32, "held_out_samples": 20, "size": SIDE, "batch_size": 8},
}


def test_lesions_are_the_same_every_time_and_the_splits_share_none():
    train, again, held_out = (open_lesions(LESIONS, split) for split in ("train", "train", "held_out"))
    first, repeated, other = (source.read(tf.range(12, dtype=tf.int64)) for source in (train, again, held_out))
    assert all(np.array_equal(first[name], repeated[name]) for name in first)
    assert not np.array_equal(first["image"], other["image"])
    assert train.schema.class_names == CLASSES and held_out.schema.num_samples == 12


def test_lesions_are_brighter_than_the_tissue_around_them_and_of_both_kinds():
    source = open_lesions(LesionsData(num_samples=60, size=64), "train")
    batch = source.read(tf.range(60, dtype=tf.int64))
    image, mask = batch["image"].numpy()[..., 0], batch["mask"].numpy()
    found = [i for i in range(60) if (mask[i] > 0).any()]
    assert 30 < len(found) < 60 and {0, 1, 2} == set(np.unique(mask))
    brighter = [image[i][mask[i] > 0].mean() > image[i][mask[i] == 0].mean() for i in found]
    assert np.mean(brighter) > 0.9


def counted(mask: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The metrics by their definitions, with sets of pixels."""
    ious, dices = [], []
    for c in range(3):
        one, other = mask == c, predicted == c
        if (one | other).any():
            ious.append((one & other).sum() / (one | other).sum())
            dices.append((2 * (one & other).sum() / (one.sum() + other.sum()), c))
    foreground = [dice for dice, c in dices if c > 0]
    return {
        "mean_iou": float(np.mean(ious)),
        "foreground_dice": float(np.mean(foreground)),
        "pixel_accuracy": float((mask == predicted).mean()),
    }


@pytest.mark.parametrize("batch_size", [3, 8])
def test_metrics_are_those_of_all_pixels_together_however_they_are_cut(batch_size):
    task = build_task(SegmentationTask(), SCHEMA)
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 3, (10, SIDE, SIDE)) * rng.integers(0, 2, (10, 1, 1))
    logits = rng.normal(size=(10, SIDE, SIDE, 3)) + 2 * np.eye(3)[masks]
    total: dict[str, np.ndarray] = {}
    for begin in range(0, 10, batch_size):
        rows = [min(i, 9) for i in range(begin, begin + batch_size)]
        weights = [float(i < 10) for i in range(begin, begin + batch_size)]
        batch = {"mask": tf.constant(masks[rows], tf.int32), "sample_weight": tf.constant(weights)}
        for name, sums in task.metric_sums(tf.constant(logits[rows], tf.float32), batch).items():
            total[name] = total.get(name, 0) + sums.numpy().astype(np.float64)
    assert task.metrics(total) == pytest.approx(counted(masks, logits.argmax(-1)), rel=1e-9)


def test_dice_is_an_overlap():
    task = build_task(SegmentationTask(dice=1.0), SCHEMA)
    plain = build_task(SegmentationTask(dice=0.0), SCHEMA)
    mask = np.zeros((2, SIDE, SIDE), np.int32)
    mask[0, :4] = 1
    right, wrong = 60 * np.eye(3)[mask], 60 * np.eye(3)[(mask + 1) % 3]

    def dice(logits: np.ndarray) -> np.ndarray:
        batch = {"mask": tf.constant(mask)}
        both = [one.loss(tf.constant(logits, tf.float32), batch)[0].numpy() for one in (task, plain)]
        return both[0] - both[1]

    np.testing.assert_allclose(dice(right), [0, 0], atol=1e-5)
    # Class 1 is there in 64 pixels and found in the 192 others; class 2 is found in those 64 and nowhere there.
    np.testing.assert_allclose(dice(wrong)[0], 1 - (1 / 257 + 1 / 65) / 2, rtol=1e-4)


@pytest.mark.parametrize("name", ["flip", "flip_vertical", "shift=3"])
def test_what_moves_the_image_moves_the_mask(name):
    count = 32
    keys = sample_keys(1, tf.fill([count], tf.constant(5, tf.int64)), tf.range(count, dtype=tf.int64))
    mask = np.random.default_rng(0).integers(0, 3, (count, SIDE, SIDE)).astype(np.int32)
    augment = build_augmentation([name, "brightness=0.0"], SCHEMA)
    assert augment is not None
    batch = augment({"image": tf.constant(mask[..., None] / 4, tf.float32), "mask": tf.constant(mask)}, keys)
    assert batch["mask"].dtype == tf.int32 and not np.array_equal(batch["mask"], mask)
    np.testing.assert_allclose(batch["image"][..., 0] * 4, batch["mask"], atol=1e-6)


@pytest.mark.parametrize("name", ["crop", "resized_crop", "rand_augment", "erase"])
def test_what_would_leave_the_mask_behind_is_refused(name):
    with pytest.raises(ValueError, match=rf"leave its mask, which {name} cannot change: use flip,"):
        build_augmentation([name], SCHEMA)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_unet_gives_logits_of_every_pixel_and_every_weight_has_a_gradient(precision):
    task = build_task(SegmentationTask(), SCHEMA)
    model = build_model(UnetModel(filters=(4, 6, 8)), SCHEMA, task, precision=precision, seed=0)
    batch = open_lesions(LESIONS, "train").read(tf.range(4, dtype=tf.int64))
    trainable = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(trainable)
        outputs = model.stateless_call(trainable, [v.value for v in model.non_trainable_variables], batch["image"])[0]
        loss = tf.reduce_sum(task.loss(outputs, batch)[0])
    assert outputs.shape == (4, SIDE, SIDE, 3) and outputs.dtype == tf.float32
    gradients = tape.gradient(loss, trainable)
    assert all(gradient is not None and np.isfinite(gradient).all() and np.any(gradient) for gradient in gradients)


def test_a_session_learns_and_measures():
    session = small_session(
        **TRAINING, train={"steps": 24}, optimizer={"learning_rate": 0.01}, evaluate={"every": "1ep"}
    )
    curve = losses(session, 24, 4)
    assert curve[-1] < 0.8 * curve[0]
    assert session.evaluator is not None
    assert session.evaluator.measure().keys() == {"loss", "mean_iou", "foreground_dice", "pixel_accuracy"}


def test_a_part_is_measured_alike_by_two_replicas():
    one, two = (
        small_session(**TRAINING, train={"virtual_workers": 2}, strategy={"name": name}, **{})
        for name in ("one_device", "mirrored")
    )
    np.testing.assert_allclose(losses(one, 3), losses(two, 3), rtol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": {"name": "classification"}}, r"set task\.name=segmentation"),
        ({"model": {"name": "cnn"}}, r"task\.name=segmentation does not go with model\.name=cnn: set model\.name=unet"),
    ],
)
def test_configs_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        small_config(**{**TRAINING, **change})


def test_data_that_does_not_fit_is_refused():
    labelled = Schema({"image": SCHEMA.features["image"], "label": Feature((), "int32")}, "label", 10, 3)
    with pytest.raises(ValueError, match=r"needs a class for each pixel, .* with 3 classes: choose another"):
        build_task(SegmentationTask(), labelled)
    with pytest.raises(ValueError, match=r"halves the image 5 times, so that 32 must divide both .* 16 x 16"):
        build_model(UnetModel(filters=(4,) * 6), SCHEMA, build_task(SegmentationTask(), SCHEMA))
    assert keras.config.dtype_policy().name == "float32"
