"""Random crops and flips of preprocessed images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.data import augment, preprocess

# every value encodes its position
IMAGES = 1 + jnp.arange(64 * 6 * 5 * 2, dtype=jnp.float32).reshape(64, 6, 5, 2)


def test_none_changes_nothing():
    out = augment.build({"name": "none"})(jax.random.key(0), IMAGES)
    np.testing.assert_array_equal(out, IMAGES)


@pytest.mark.parametrize("flip", [False, True])
def test_every_image_is_a_window_of_its_padded_self(flip):
    pad = 2
    apply = jax.jit(augment.build({"name": "crop_flip", "pad": pad, "flip": flip}))
    out = np.asarray(apply(jax.random.key(1), IMAGES))
    padded = np.pad(IMAGES, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    seen = set()
    for index in range(len(IMAGES)):
        views = {
            (row, column, mirror): view[:, ::-1] if mirror else view
            for mirror in (False, True)
            for row in range(2 * pad + 1)
            for column in range(2 * pad + 1)
            for view in [padded[index, row : row + 6, column : column + 5]]
        }
        found = [key for key, view in views.items() if (view == out[index]).all()]
        assert len(found) == 1
        seen.add(found[0])
    rows, columns, mirrors = map(set, zip(*seen, strict=True))
    assert rows == columns == set(range(5))  # every corner is drawn
    assert mirrors == ({False, True} if flip else {False})
    assert len(seen) > 20  # drawn for each image independently


def test_half_of_the_images_are_mirrored_and_every_corner_is_as_likely():
    count, pad = 20_000, 1
    image = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    apply = jax.jit(augment.crop_flip(pad=pad))
    out = apply(jax.random.key(0), jnp.tile(image, (count, 1, 1, 1)))
    middle = np.asarray(out)[..., 0].reshape(count, 9)
    views, drawn = np.unique(middle, axis=0, return_counts=True)
    assert len(views) == 2 * 9  # mirrored or not, from nine corners
    expected = count / 18
    assert ((drawn - expected) ** 2 / expected).sum() < 40.8  # chi^2, p = 0.001
    # mirrored where a later column holds a smaller number
    rows = middle.reshape(count, 3, 3)
    left, right = rows[:, 1, :-1], rows[:, 1, 1:]
    falls = ((left > right) & (right > 0)).any(1)
    # three standard deviations around one half
    assert abs(falls.mean() - 0.5) < 3 * 0.5 / count**0.5


def test_same_key_same_images():
    apply = augment.crop_flip(pad=1)
    first, again, other = (apply(jax.random.key(seed), IMAGES) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_flip_alone_keeps_rows():
    out = augment.crop_flip(pad=0)(jax.random.key(0), IMAGES)
    np.testing.assert_array_equal(out.sum(2), IMAGES.sum(2))


def test_colour_shift_has_the_covariance_of_the_paper():
    """One shift per image, of covariance ``deviation^2 sum p p' l^2``."""
    pixels = np.random.default_rng(0).normal(128, 30, (50, 4, 4, 1))
    colour = np.random.default_rng(1).normal(0, 10, (50, 4, 4, 3))
    dataset = np.clip(pixels + colour * [1, 2, 0.5], 0, 255).astype(np.uint8)
    found = preprocess.statistics(dataset)
    apply = augment.build({"name": "pca_colour", "deviation": 0.2}, found)
    images = jnp.zeros((20_000, 2, 2, 3))
    shifts = np.asarray(apply(jax.random.key(0), images), np.float64)
    np.testing.assert_array_equal(shifts, shifts[:, :1, :1] + 0 * shifts)
    own = np.cov(dataset.reshape(-1, 3).T / 255, bias=True)
    expected = 0.2**2 * own @ own  # p l^2 p' is the square of the covariance
    np.testing.assert_allclose(
        np.cov(shifts[:, 0, 0].T), expected, atol=0.03 * expected.max()
    )


def test_colour_shift_needs_statistics():
    with pytest.raises(names.ConfigError, match="needs the field 'statistics'"):
        augment.build({"name": "pca_colour"})


STILL = {"translate": 0.0, "scale": 0.0, "squeeze": 0.0, "shear": 0.0}


def test_distortion_of_nothing_changes_nothing():
    apply = augment.build({"name": "distort", **STILL})
    np.testing.assert_allclose(apply(jax.random.key(0), IMAGES), IMAGES, rtol=1e-6)


def spread(images):
    """Standard deviation of ink along rows and columns, and their covariance."""
    ink = np.asarray(images, np.float64)[..., 0] + 0.1
    ink /= ink.sum((1, 2), keepdims=True)
    row, column = np.mgrid[: ink.shape[1], : ink.shape[2]]
    row = row - (ink * row).sum((1, 2), keepdims=True)
    column = column - (ink * column).sum((1, 2), keepdims=True)
    moments = [(ink * one).sum((1, 2)) for one in (row**2, column**2, row * column)]
    return np.sqrt(moments[0]), np.sqrt(moments[1]), moments[2]


@pytest.mark.parametrize("kind", ["translate", "scale", "squeeze", "shear"])
def test_each_distortion_does_its_own(kind):
    images = np.full((200, 40, 40, 1), -0.1, np.float32)
    images[:, 14:26, 16:24] = 1.175
    amount = 3.0 if kind == "translate" else 0.2
    apply = jax.jit(augment.build({"name": "distort", **STILL, kind: amount}))
    out = np.asarray(apply(jax.random.key(2), jnp.asarray(images)))
    np.testing.assert_allclose(out[:, 0], -0.1, atol=1e-6)
    tall, wide, slant = (
        new / np.maximum(abs(old), 1)
        for new, old in zip(spread(out), spread(images), strict=True)
    )
    ink = (out + 0.1).sum((2, 3))
    centre = ink @ np.arange(40) / ink.sum(1)
    changed = {
        "scale": np.std(tall) > 0.03 and np.corrcoef(tall, wide)[0, 1] > 0.9,
        "squeeze": np.std(tall) > 0.03 and np.corrcoef(tall, wide)[0, 1] < -0.9,
        "shear": np.std(slant) > 0.3,
        "translate": np.ptp(centre) > 4,
    }
    assert [name for name, found in changed.items() if found] == [kind]


def test_amounts_out_of_range():
    with pytest.raises(names.ConfigError, match=r"shear 1\.0 is out of range"):
        augment.build({"name": "distort", "shear": 1.0})


def test_negative_pad():
    with pytest.raises(names.ConfigError, match="pad -1 is negative"):
        augment.build({"name": "crop_flip", "pad": -1})


def test_random_erasing_is_a_rectangle_of_the_papers_sizes():
    """Zhong et al. 2020, algorithm 1: area 2 to 40 %, aspect ratio 0.3 to 1 / 0.3."""
    images = jnp.ones((400, 32, 32, 2))
    erasing = jax.jit(augment.random_erasing, static_argnums=2)
    erased = np.asarray(erasing(jax.random.key(0), images, 0.5) == 0)
    assert (erased[..., 0] == erased[..., 1]).all()
    chosen = erased[..., 0][erased.any((1, 2, 3))]
    # 400 draws: three standard deviations are 0.075
    assert len(chosen) / 400 == pytest.approx(0.5, abs=0.075)
    rows, columns = chosen.any(2).sum(1), chosen.any(1).sum(1)
    np.testing.assert_array_equal(chosen.sum((1, 2)), rows * columns)
    # sides are rounded to whole pixels
    assert (((rows + 0.5) * (columns + 0.5)) > 0.02 * 1024).all()
    assert (((rows - 0.5) * (columns - 0.5)) < 0.4 * 1024).all()
    aspect = rows / columns
    assert 0.2 < aspect.min() < 0.5
    assert 2.0 < aspect.max() < 4.5
    # every position is reached, including the borders
    assert chosen.any(0).all()


def test_erasing_comes_after_crop_and_flip_and_leaves_their_draws():
    images = jax.random.normal(jax.random.key(0), (64, 8, 8, 1)) + 5
    key = jax.random.key(1)
    without = jax.jit(augment.crop_flip(pad=1))(key, images)
    found = jax.jit(augment.crop_flip(pad=1, erase=0.5))(key, images)
    same = np.asarray(found == without)
    assert (np.asarray(found)[~same] == 0).all()
    assert 0.2 < (~same).any((1, 2, 3)).mean() < 0.8
    with pytest.raises(names.ConfigError, match=r"erase 1.5 is not in \[0, 1\]"):
        augment.crop_flip(erase=1.5)
