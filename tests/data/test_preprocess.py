"""Statistics, and the functions from pixels to network inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.data import preprocess

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3)).astype(np.uint8)
STATISTICS = preprocess.statistics(IMAGES)


def test_statistics_agree_with_numpy(monkeypatch):
    monkeypatch.setattr(preprocess, "CHUNK", 7)
    found = preprocess.statistics(IMAGES)
    real = IMAGES / 255
    close = np.testing.assert_allclose
    close(found.pixel_mean, real.mean(0), rtol=1e-6)
    close(found.pixel_std, real.std(0), rtol=1e-6)
    close(found.channel_mean, real.mean((0, 1, 2)), rtol=1e-6)
    close(found.channel_std, real.std((0, 1, 2)), rtol=1e-6)
    close(found.covariance, np.cov(real.reshape(-1, 3).T, bias=True), rtol=1e-5)


@pytest.mark.parametrize("mean", ["pixel", "channel", "none"])
@pytest.mark.parametrize("std", ["none", "pixel", "channel"])
def test_standardize_agrees_with_numpy(mean, std):
    apply = preprocess.build(
        {"name": "standardize", "mean": mean, "std": std}, STATISTICS
    )
    out = jax.jit(apply)(jnp.asarray(IMAGES))
    real = IMAGES / 255
    axes = {"pixel": 0, "channel": (0, 1, 2)}
    expected = real - real.mean(axes[mean], keepdims=True) if mean in axes else real
    if std in axes:
        expected = expected / real.std(axes[std], keepdims=True)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, atol=2e-6)


def test_constant_pixel_is_left_undivided():
    images = IMAGES.copy()
    images[:, 0, 0] = 51
    apply = preprocess.standardize(preprocess.statistics(images), std="pixel")
    out = apply(jnp.asarray(images))
    np.testing.assert_allclose(out[:, 0, 0], 0, atol=1e-7)
    assert bool(jnp.isfinite(out).all())
    unseen = jnp.full((1, 5, 4, 3), 255, jnp.uint8)
    np.testing.assert_allclose(apply(unseen)[0, 0, 0], 0.8, rtol=1e-6)


def test_interval_puts_background_and_ink_at_its_ends():
    images = np.zeros((2, 8, 8, 1), np.uint8)
    images[0, 2:6, 2:6] = 255
    section = {"name": "interval", "low": -0.1, "high": 1.175, "size": 28, "pad": 2}
    out = preprocess.build(section, STATISTICS)(jnp.asarray(images))
    assert out.shape == (2, 32, 32, 1)
    np.testing.assert_allclose(out[1], -0.1, rtol=1e-6)
    np.testing.assert_allclose(out[0, 16, 16], 1.175, rtol=1e-6)
    np.testing.assert_allclose(out[0, :2], -0.1, rtol=1e-6)


def test_resize_is_bilinear_between_pixel_centres():
    images = np.array([[0, 255]], np.uint8).reshape(1, 1, 2, 1)
    out = preprocess.interval(low=0.0, high=1.0, size=4)(jnp.asarray(images))
    np.testing.assert_allclose(out[0, 0, :, 0], [0, 0.25, 0.75, 1], atol=1e-6)


def test_standardize_resizes_and_pads_with_the_mean():
    apply = preprocess.standardize(STATISTICS, size=10, pad=1)
    out = apply(jnp.asarray(IMAGES))
    assert out.shape == (40, 12, 12, 3)
    np.testing.assert_array_equal(out[:, 0], 0)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "whiten"}, "unknown preprocess 'whiten'.*standardize, interval"),
        (
            {"name": "standardize", "mean": "pixels"},
            "mean must be one of 'pixel', 'channel', 'none' or a sequence of float, "
            "got 'pixels'",
        ),
        ({"name": "standardize", "pad": -1}, "pad -1 is negative"),
        ({"name": "interval", "low": 2.0}, "low must be below high, got 2.0 and 1.175"),
        ({"name": "interval", "low": 1.0, "high": 1.0}, "below high, got 1.0 and 1.0"),
    ],
)
def test_bad_sections(section, message):
    with pytest.raises(names.ConfigError, match=message):
        preprocess.build(section, STATISTICS)


def test_constants_of_a_config_are_taken_as_they_are():
    """As published weights need them, regardless of the training images."""
    images = np.full((1, 2, 2, 3), 51, np.uint8)
    own = preprocess.statistics(images)
    made = preprocess.standardize(own, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    found = made(jnp.asarray(images))
    np.testing.assert_allclose(found[0, 1, 1], [0.2, 0.0, -0.05], atol=1e-6)
    for fields in ({"mean": (0.1, 0.2)}, {"std": (0.1, 0.2, 0.0)}):
        with pytest.raises(
            names.ConfigError, match=r"must be 3 (positive )?numbers, one per ch"
        ):
            preprocess.standardize(own, **fields)
