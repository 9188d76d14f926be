"""Lines match their fields and are the same on every request."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage

from cnn_jax import names
from cnn_jax.data import strings


def glyph_images():
    """Three 8x8 digits of 3, 4 and 6 columns: a bar, a ring and a wide bar."""
    images = np.zeros((3, 8, 8), np.uint8)
    images[0, :, 2:5] = 255
    images[1, :, 2:6] = 255
    images[1, 2:6, 3:5] = 0
    images[2, 3:5, 1:7] = 200
    return images


def stream(**fields):
    """A stream of the three glyphs."""
    fields = {"glyph_height": 8, "height": 14, "jitter": 2, **fields}
    return strings.DigitStrings(glyph_images(), np.arange(3), **fields)


def assert_equal(one, other, same=True):
    """Assert that two batches are equal, or that they differ."""
    equal = all(np.array_equal(one[key], other[key]) for key in one)
    assert equal == same


def test_a_step_gives_the_same_batch_and_other_steps_seeds_and_sets_others():
    lines = stream(noise=0.1)
    assert_equal(lines.batch(3, 5), stream(noise=0.1).batch(3, 5))
    assert_equal(lines.batch(3, 5), lines.batch(4, 5), same=False)
    assert_equal(lines.batch(3, 5), stream(noise=0.1, seed=1).batch(3, 5), same=False)
    assert_equal(lines.test_set(5), lines.test_set(5))
    assert_equal(lines.test_set(5), lines.test_set(5, number=1), same=False)
    assert_equal(lines.test_set(5), lines.batch(0, 5), same=False)


def test_digits_apart_stand_where_the_spans_say():
    lines = stream(touching=0.0, spacing=(2, 4), max_length=4)
    batch = lines.batch(0, 20)
    widths = np.array([3, 4, 6])
    assert set(batch["length"]) == {3, 4}
    for image, label, length, span in zip(
        batch["image"], batch["label"], batch["length"], batch["span"], strict=True
    ):
        assert (label[length:] == -1).all()
        assert (span[length:] == -1).all()
        label, span = label[:length], span[:length]
        np.testing.assert_array_equal(span[:, 1] - span[:, 0], widths[label])
        gaps = span[1:, 0] - span[:-1, 1]
        assert gaps.min() >= 2
        assert gaps.max() <= 4
        inked = np.zeros(image.shape[1], bool)
        for left, right in span:
            inked[left:right] = True
        np.testing.assert_array_equal(image.any((0, 2)), inked)
        parts = scipy.ndimage.label(image[:, :, 0], np.ones((3, 3)))[1]
        assert parts == length


def test_each_gap_and_each_row_of_the_jitter_occurs():
    batch = stream(touching=0.0, spacing=(2, 4)).batch(0, 100)
    span = batch["span"]
    pairs = batch["length"][:, None] > np.arange(1, 5)
    gaps = (span[:, 1:, 0] - span[:, :-1, 1])[pairs]
    assert set(gaps) == {2, 3, 4}
    bars = [
        image[:, left, 0].argmax()
        for image, label, spans in zip(
            batch["image"], batch["label"], span, strict=True
        )
        for digit, (left, _) in zip(label, spans, strict=True)
        if digit == 0
    ]
    assert set(bars) == {1, 2, 3, 4, 5}


def test_touching_digits_meet_and_overlap_no_more_than_allowed():
    batch = stream(touching=1.0, overlap=2, jitter=0).batch(0, 30)
    for image, length, span in zip(
        batch["image"], batch["length"], batch["span"], strict=True
    ):
        parts = scipy.ndimage.label(image[:, :, 0], np.ones((3, 3)))[1]
        assert parts == 1
        gaps = span[1:length, 0] - span[: length - 1, 1]
        assert gaps.min() >= -2
        assert gaps.max() <= 0
    # A slope lets a neighbour slide under it; a straight side does not.
    slope = (255 * np.tri(8, dtype=np.uint8))[None]
    lines = strings.DigitStrings(
        np.concatenate([slope, slope[:, ::-1, ::-1]]), np.arange(2),
        glyph_height=8, height=8, jitter=0, touching=1.0, overlap=3,
        min_length=2, max_length=2,
    )  # fmt: skip
    batch = lines.batch(0, 30)
    gaps = batch["span"][:, 1, 0] - batch["span"][:, 0, 1]
    under = (batch["label"] == [0, 1]).all(1)
    assert set(gaps[under]) == {-3}
    assert set(gaps[~under]) == {0}


def test_isolated_digits_stand_in_the_middle_of_a_square():
    batch = stream().isolated().batch(0, 30)
    assert batch["image"].shape == (30, 14, 14, 1)
    assert set(batch["length"]) == {1}
    assert set(batch["label"][:, 0]) == {0, 1, 2}
    assert set(batch["span"][:, 0].sum(1) // 2) == {7}


def test_noise_has_the_standard_deviation_of_its_field():
    clean, noisy = (stream(noise=noise).batch(0, 50)["image"] for noise in (0.0, 0.1))
    change = noisy.astype(float) - clean
    assert abs(change[clean == 200].std() / 255 - 0.1) < 0.01
    assert abs(change[clean == 200].mean()) < 4


def test_digits_are_scaled_to_the_height():
    lines = stream(glyph_height=16, height=16, jitter=0, noise=0.0)
    batch = lines.batch(0, 20)
    bars = batch["label"] == 0
    widths = (batch["span"][:, :, 1] - batch["span"][:, :, 0])[bars]
    assert set(widths) <= {6, 7, 8}
    line, column = np.argwhere(bars)[0]
    assert batch["image"][line, :, batch["span"][line, column, 0] + 2].min() == 255


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_length": 0}, "min_length must be at least 1"),
        ({"min_length": 4, "max_length": 3}, "max_length, got 4 and 3"),
        (
            {"jitter": 4},
            "height 14 is too small: digits of 8 rows with jitter 4 need 16",
        ),
        ({"spacing": (3, 2)}, r"spacing must be .* got \(3, 2\)"),
        ({"columns": 20}, "columns 20 is too small: 5 digits can need 52"),
        ({"touching": 1.5}, "touching must be in .*, got 1.5"),
        ({"noise": -0.1}, "noise must not be negative, got .* -0.1"),
        ({"images": np.zeros((3, 8, 8), np.float32)}, "images must be uint8"),
        ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, "1 channel, got 3"),
        ({"images": np.zeros((3, 8, 8), np.uint8)}, "image 0 has no ink"),
        ({"labels": np.arange(2)}, "one per image, .* got 3 images"),
        ({"labels": np.arange(3) - 1}, "label -1 is negative"),
    ],
)
def test_what_makes_no_lines_is_refused(fields, message):
    with pytest.raises(names.ConfigError, match=message):
        dataclasses.replace(stream(), **fields)
