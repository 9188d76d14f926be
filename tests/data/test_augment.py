"""Random crops and flips of preprocessed images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.data import augment

# every value tells where it came from
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
    assert len(seen) > 20  # drawn for each image by itself


def test_same_key_same_images():
    apply = augment.crop_flip(pad=1)
    first, again, other = (apply(jax.random.key(seed), IMAGES) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_flip_alone_keeps_rows():
    out = augment.crop_flip(pad=0)(jax.random.key(0), IMAGES)
    np.testing.assert_array_equal(out.sum(2), IMAGES.sum(2))


def test_negative_pad():
    with pytest.raises(names.ConfigError, match="pad -1 is negative"):
        augment.build({"name": "crop_flip", "pad": -1})
