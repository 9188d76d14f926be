"""From uint8 pixels to a network's input: scaling, resizing, padding.

The constants come from the training images, or from the config for published weights
trained with other constants. `build` returns a pure function of a batch that runs
inside the compiled step.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from cnn_jax import names

Preprocess = Callable[[Array], Array]

CHUNK = 1024  # images converted at once


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of the training images, in units of 0..1.

    Attributes:
      pixel_mean: mean of every pixel and channel over the images.
      pixel_std: their standard deviation (population, not sample).
      covariance: covariance of the channels, over images and pixels.
    """

    pixel_mean: Float32[np.ndarray, "height width channels"]
    pixel_std: Float32[np.ndarray, "height width channels"]
    covariance: Float32[np.ndarray, "channels channels"]

    @functools.cached_property
    def channel_mean(self) -> Float32[np.ndarray, " channels"]:
        """Mean of every channel over images and pixels."""
        return self.pixel_mean.mean((0, 1), np.float64).astype(np.float32)

    @functools.cached_property
    def channel_std(self) -> Float32[np.ndarray, " channels"]:
        """Standard deviation of every channel over images and pixels."""
        return np.sqrt(np.diag(self.covariance))


class Sums:
    """Running sums over batches of images, from which statistics follow.

    Args:
      shape: height, width and channels of an image.
    """

    def __init__(self, shape: Sequence[int]):
        self.count = 0
        self.pixels = np.zeros(shape, np.int64)
        self.squares = np.zeros(shape, np.int64)
        self.products = np.zeros((shape[-1], shape[-1]))

    def add(self, images: UInt8[np.ndarray, "n height width channels"]) -> None:
        """Add images, pixels 0..255."""
        wide = images.astype(np.int32)
        self.count += len(images)
        self.pixels += wide.sum(0)
        self.squares += np.square(wide).sum(0)
        # also exact: integers below 2^53
        flat = images.reshape(-1, images.shape[-1]).astype(np.float64)
        self.products += flat.T @ flat

    def statistics(self) -> Statistics:
        """The statistics of all images added so far."""
        mean = self.pixels / self.count
        variance = np.maximum(self.squares / self.count - np.square(mean), 0)
        places = self.count * mean[..., 0].size
        channel = mean.mean((0, 1))
        covariance = self.products / places - np.outer(channel, channel)
        return Statistics(
            (mean / 255).astype(np.float32),
            (np.sqrt(variance) / 255).astype(np.float32),
            (covariance / 255**2).astype(np.float32),
        )


def statistics(images: UInt8[np.ndarray, "n height width channels"]) -> Statistics:
    """Mean and standard deviation of images, summed in exact integers.

    Args:
      images: training images, pixels 0..255.

    Returns:
      Their statistics.
    """
    sums = Sums(images.shape[1:])
    for start in range(0, len(images), CHUNK):
        sums.add(images[start : start + CHUNK])
    return sums.statistics()


def standardize(
    statistics: Statistics,
    mean: Literal["pixel", "channel", "none"] | Sequence[float] = "pixel",
    std: Literal["none", "pixel", "channel"] | Sequence[float] = "none",
    size: int = 0,
    pad: int = 0,
) -> Preprocess:
    """``(pixels / 255 - mean) / std``.

    He et al. (2015), section 4.2, and Krizhevsky et al. (2012), section 2, subtract
    the per-pixel mean only. A pixel (or channel) that is constant over all training
    images is not divided.

    Args:
      statistics: statistics of the training images.
      mean: kind of mean to subtract, or one number per channel in units of 0..1, as
        published weights need them.
      std: kind of standard deviation to divide by, or numbers likewise.
      size: side to which images are resized (bilinear) afterwards; 0 for none.
      pad: rows and columns of zeros (the mean) added on each side at the end.

    Returns:
      Function from uint8 (n, h, w, c) to float32 (n, H, W, c).

    Raises:
      ConfigError: negative size or pad, or numbers that do not fit the channels.
    """
    _check(size, pad)
    shape = statistics.pixel_mean.shape
    means = {
        "pixel": statistics.pixel_mean,
        "channel": statistics.channel_mean,
        "none": np.zeros((), np.float32),
    }
    deviations = {
        "pixel": statistics.pixel_std,
        "channel": statistics.channel_std,
        "none": np.ones((), np.float32),
    }
    subtract = _constant("mean", mean, means, shape[-1])
    divide = _constant("std", std, deviations, shape[-1])
    divide = np.where(divide > 0, divide, np.float32(1))
    subtract, divide = (
        np.broadcast_to(constant, shape)[None] for constant in (subtract, divide)
    )

    def preprocess(
        images: UInt8[Array, "n h w c"],
    ) -> Float32[Array, "n out_h out_w c"]:
        x = (images.astype(jnp.float32) / 255 - subtract) / divide
        return _pad(_resize(x, size), pad, 0.0)

    return preprocess


def interval(
    low: float = -0.1, high: float = 1.175, size: int = 0, pad: int = 0
) -> Preprocess:
    """Pixel 0 (background) becomes ``low``, pixel 255 (ink) ``high``.

    The defaults are those of LeCun et al. (1998), section II.B, for a mean of about 0
    and a variance of about 1; on the MNIST of today they give 0.03 and 0.12. ``pad=2``
    centres 28x28 digits in a 32x32 field.

    Args:
      low: value of the background.
      high: value of ink.
      size: side to which images are resized (bilinear) first; 0 for none.
      pad: rows and columns of background added on each side.

    Returns:
      Function from uint8 (n, h, w, c) to float32 (n, H, W, c).

    Raises:
      ConfigError: negative size or pad, or an empty interval.
    """
    _check(size, pad)
    if low >= high:
        raise names.ConfigError(
            f"preprocess: low must be below high, got {low} and {high}"
        )

    def preprocess(
        images: UInt8[Array, "n h w c"],
    ) -> Float32[Array, "n out_h out_w c"]:
        x = low + (high - low) / 255 * images.astype(jnp.float32)
        return _pad(_resize(x, size), pad, low)

    return preprocess


TABLE: dict[str, Callable[..., Any]] = {
    "standardize": standardize,
    "interval": interval,
}


def build(section: Mapping[str, Any], statistics: Statistics) -> Preprocess:
    """Build the function of a config section ``preprocess``.

    Args:
      section: ``name`` ('standardize', 'interval', ``package.module:function``)
        and its fields.
      statistics: statistics of the training images.

    Returns:
      Pure function from uint8 (n, h, w, c) to float32 (n, H, W, c).

    Raises:
      ConfigError: unknown name, field or value.
    """
    return names.build("preprocess", section, TABLE, statistics=statistics)


def _constant(
    field: str,
    value: str | Sequence[float],
    table: Mapping[str, np.ndarray],
    channels: int,
) -> np.ndarray:
    """The constant of a name, or the numbers of a config unchanged."""
    if isinstance(value, str):
        return table[value]
    if len(value) != channels or (field == "std" and min(value) <= 0):
        positive = "positive " if field == "std" else ""
        raise names.ConfigError(
            f"preprocess: {field} must be {channels} {positive}numbers, one per "
            f"channel, got {tuple(value)}"
        )
    return np.asarray(value, np.float32)


def _check(size: int, pad: int) -> None:
    """Reject a negative size or padding."""
    for field, value in (("size", size), ("pad", pad)):
        if value < 0:
            raise names.ConfigError(f"preprocess: {field} {value} is negative")


def _resize(x: Float[Array, "n h w c"], size: int) -> Float[Array, "n h2 w2 c"]:
    """Resize to size x size pixels, bilinear; unchanged if size is 0."""
    if not size:
        return x
    return jax.image.resize(x, (x.shape[0], size, size, x.shape[3]), "bilinear")


def _pad(
    x: Float[Array, "n h w c"], pad: int, value: float
) -> Float[Array, "n h2 w2 c"]:
    """Add ``pad`` pixels of ``value`` on each side."""
    edges = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    return jnp.pad(x, edges, constant_values=value)
