import numpy as np
import tensorflow as tf

from trainer.config.verification import GlyphsData
from trainer.data.glyphs import TYPEFACES, open_glyphs


def test_the_letters_of_the_splits_differ_and_are_numbered_on():
    train, held_out = (open_glyphs(GlyphsData(held_out_fraction=0.2), split) for split in ("train", "held_out"))
    assert train.schema.class_names and held_out.schema.class_names and train.schema.num_classes
    trained = train.schema.num_classes
    assert held_out.schema.class_names[:trained] == train.schema.class_names
    assert {"A", "\u03a9", "\u0416"} <= set(held_out.schema.class_names)  # Latin, Greek, Cyrillic
    assert not {"\u0391", "\u00c4"} & set(held_out.schema.class_names)  # looks like A; has an accent
    for source, numbers in ((train, range(trained)), (held_out, range(trained, held_out.schema.num_classes or 0))):
        batch = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
        labels, images = batch["label"].numpy(), batch["image"].numpy()
        assert np.bincount(labels, minlength=numbers.stop)[numbers.start :].tolist() == [len(TYPEFACES)] * len(numbers)
        assert images.shape[1:] == (28, 28, 1) and images.min() == 0 and images.max() == 1
        of_letter = images[labels == numbers.start]
        assert len({image.tobytes() for image in of_letter}) > len(TYPEFACES) // 2  # slanted ones may look alike
    names = held_out.schema.class_names
    row = int(np.flatnonzero(labels == numbers.start)[0])
    assert f"letter U+{ord(names[numbers.start]):04X}" in held_out.locate(row)
