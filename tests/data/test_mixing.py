"""Pairwise mixing against the papers' formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.data import mixing
from cnn_jax.names import ConfigError

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 10, 2)).astype(np.float32)
DRAWS = 1000


def drawn(mix):
    """Mixed images, partners and shares for many keys, compiled once."""
    keys = jax.random.split(jax.random.key(1), DRAWS)
    found = jax.jit(jax.vmap(mix, (0, None)))(keys, jnp.asarray(IMAGES))
    return jax.tree.map(np.asarray, found)


def test_mixup_is_a_weighted_mean_of_pairs():
    """Zhang et al. 2018, section 2, with one share per call."""
    mixed, partner, share = drawn(mixing.mixup(alpha=0.5))
    np.testing.assert_array_equal(np.sort(partner), np.tile(np.arange(4), (DRAWS, 1)))
    assert len(np.unique(partner, axis=0)) == 24
    expected = np.einsum("d,nhwc->dnhwc", share, IMAGES)
    expected += np.einsum("d,dnhwc->dnhwc", 1 - share, IMAGES[partner])
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-5)
    # Beta(1/2, 1/2)
    assert share.mean() == pytest.approx(0.5, abs=0.04)
    assert share.var() == pytest.approx(1 / 8, rel=0.1)


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels():
    """Yun et al. 2019, section 3.1: the share is that of the pixels kept."""
    mixed, partner, share = drawn(mixing.cutmix())
    cut = np.zeros((DRAWS, 8, 10), bool)
    for row in range(4):
        moved = partner[:, row] != row
        cut[moved] |= (mixed[moved, row] != IMAGES[row]).all(-1)
    cut[(partner == np.arange(4)).all(1)] = False
    rows, columns = cut.any(2), cut.any(1)
    np.testing.assert_array_equal(cut, rows[:, :, None] & columns[:, None])
    expected = np.where(cut[:, None, :, :, None], IMAGES[partner], IMAGES[None])
    np.testing.assert_array_equal(mixed, expected)
    moved = (partner != np.arange(4)).any(1)
    np.testing.assert_allclose(share[moved], 1 - cut[moved].mean((1, 2)), atol=1e-6)
    # a rectangle of the image's aspect ratio, cut off at its borders
    rng = np.random.default_rng(0)
    side, middle = np.sqrt(1 - rng.uniform(size=9999)), rng.uniform(size=(2, 9999))
    low, high = np.clip(middle - side / 2, 0, 1), np.clip(middle + side / 2, 0, 1)
    assert share.mean() == pytest.approx(1 - (high - low).prod(0).mean(), abs=0.03)


@pytest.mark.parametrize("mix", [mixing.mixup, mixing.cutmix])
def test_alpha_is_positive(mix):
    with pytest.raises(ConfigError, match=r"mix.alpha 0.0 is not positive"):
        mix(alpha=0.0)
