"""The figures of `benchmarks.input`, and that its limit does the work that Phalanx does."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks.input import best_peer, ratio, samples_per_s, targets_of
from benchmarks.input_sources import SIDE, decoded, in_parallel
from benchmarks.synthetic_records import class_image
from trainer.data.image_decoding import decode_images

RATES = {
    "phalanx": [90.0, 120.0, 80.0],
    "limit": [100.0, 100.0, 100.0],
    "tf.data": [60.0, 60.0, 70.0],
    "grain": [9.0] * 3,
}


def test_a_ratio_is_the_median_of_the_rounds_and_the_best_peer_is_no_limit():
    assert ratio(RATES, "limit") == 0.9
    assert best_peer(RATES) == "tf.data"
    wait = {"waits for storage": [{"images_per_s": 100.0}, {"images_per_s": 160.0}]}
    assert targets_of({"samples_per_s": {"records": RATES}, "wait": wait}) == [
        "target records_of_limit 0.9 >=0.9 ok",
        "target records_of_best_peer 1.5 >=1.0 ok",
        "target service_speedup_waiting 1.6 >=1.5 ok",
    ]


def test_the_limit_decodes_what_phalanx_decodes():
    file = io.BytesIO()
    Image.fromarray(class_image(3, 10, np.random.default_rng(0))).save(file, "JPEG", quality=90)
    own, is_decoded = decode_images(tf.constant([file.getvalue()]), (SIDE, SIDE), 3, "crop")
    assert is_decoded.numpy().all()
    np.testing.assert_allclose(decoded(tf.constant(file.getvalue())), own[0], atol=1e-6)


def test_work_in_parallel_is_counted_in_samples():
    begin = in_parallel(lambda number: tf.fill([64, 3], number), 64)
    assert next(begin()) == 64
    assert samples_per_s(begin, 0.05) > 64
