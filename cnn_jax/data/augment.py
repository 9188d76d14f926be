"""Random changes to training images, on the device, inside the compiled step.

`build` returns a pure function ``(key, images) -> images`` of a preprocessed batch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from cnn_jax import names
from cnn_jax.data.preprocess import Statistics

Images = Float[Array, "n h w c"]
Augment = Callable[[Any, Array], Array]


def none() -> Augment:
    """Leave images unchanged."""

    def augment(key: Key[Array, ""], images: Images) -> Images:
        del key
        return images

    return augment


def crop_flip(pad: int = 4, flip: bool = True, erase: float = 0.0) -> Augment:
    """A random crop of the padded image, mirrored with probability 1/2.

    He et al. (2015), section 4.2 (after Lee et al. 2015): 4 pixels of zeros on
    each side of the normalised image, then a crop of the original size.

    Args:
      pad: pixels of zeros on each side; 0 for no crop.
      flip: mirror left to right with probability 1/2.
      erase: probability of `random_erasing` in the result.

    Returns:
      Function of a key and images (n, h, w, c), with independent draws per image.

    Raises:
      ConfigError: pad is negative, or erase is no probability.
    """
    if pad < 0:
        raise names.ConfigError(f"augment: pad {pad} is negative")
    if not 0 <= erase <= 1:
        raise names.ConfigError(f"augment: erase {erase} is not in [0, 1]")

    def augment(key: Key[Array, ""], images: Images) -> Images:
        count, height, width, channels = images.shape
        crop_key, flip_key = jax.random.split(key)
        if pad:
            padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
            corners = jax.random.randint(crop_key, (count, 2), 0, 2 * pad + 1)

            def crop(image, corner):
                start = (corner[0], corner[1], 0)
                return jax.lax.dynamic_slice(image, start, (height, width, channels))

            images = jax.vmap(crop)(padded, corners)
        if flip:
            mirrored = jax.random.bernoulli(flip_key, 0.5, (count, 1, 1, 1))
            images = jnp.where(mirrored, images[:, :, ::-1], images)
        if erase:
            images = random_erasing(jax.random.fold_in(key, 2), images, erase)
        return images

    return augment


def random_erasing(key: Key[Array, ""], images: Images, probability: float) -> Images:
    """Set a rectangle of some images to 0, the mean of standardised images.

    Zhong et al. (2020), "Random erasing data augmentation", with the paper's numbers: 2
    to 40 % of the area and an aspect ratio of 0.3 to 1 / 0.3, drawn again if the sides
    do not fit. The place is drawn among those where the rectangle fits; the paper's
    algorithm 1 draws the sides again as well, which favours small rectangles.

    Args:
      key: random key of this batch.
      images: (n, h, w, c), with independent draws per image.
      probability: probability that an image has a rectangle.

    Returns:
      Images of the same shape.
    """
    count, height, width, _ = images.shape
    chosen_key, area_key, aspect_key, place_key = jax.random.split(key, 4)
    tries = (count, 4)  # one draw in 30 does not fit
    area = jax.random.uniform(area_key, tries, minval=0.02, maxval=0.4)
    area = area * height * width
    aspect = jax.random.uniform(aspect_key, tries, minval=0.3, maxval=1 / 0.3)
    sides = jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)], -1).round()
    room = jnp.array([[[height, width]]]) - sides
    fits = (room >= 0).all(-1)
    first = jnp.argmax(fits, 1)[:, None, None]
    corner = jax.random.uniform(place_key, (*tries, 2)) * (room + 1)
    sides, corner = (
        jnp.take_along_axis(drawn, first, 1)[:, 0] for drawn in (sides, corner // 1)
    )
    chosen = fits.any(1) & jax.random.bernoulli(chosen_key, probability, (count,))

    def within(length: int, axis: int) -> Array:
        place = jnp.arange(length)[None, :] - corner[:, axis, None]
        return (place >= 0) & (place < sides[:, axis, None])

    rows, columns = within(height, 0), within(width, 1)
    erased = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
    return jnp.where(erased[..., None], 0.0, images)


def pca_colour(statistics: Statistics, deviation: float = 0.1) -> Augment:
    """Shift each image's colour along the principal axes of the training set's pixels.

    Krizhevsky et al. (2012), section 4.1: every pixel of an image is shifted by
    ``[p1, p2, p3] [a1 l1, a2 l2, a3 l3]``. Here p and l are eigenvectors and
    eigenvalues of the covariance of RGB values in the training set, and each a is
    drawn once per image from a normal distribution. The formula depends on the unit
    of the pixels, which the paper does not give: here 0..1, since in 0..255 it would
    shift by hundreds of grey levels. Preprocess with ``std='none'``.

    Args:
      statistics: statistics of the training images.
      deviation: standard deviation of each a.

    Returns:
      Function of a key and images (n, h, w, c).

    Raises:
      ConfigError: the deviation is negative.
    """
    if deviation < 0:
        raise names.ConfigError(f"augment: deviation {deviation} is negative")
    values, vectors = np.linalg.eigh(statistics.covariance.astype(np.float64))
    axes = (vectors * values).astype(np.float32)

    def augment(key: Key[Array, ""], images: Images) -> Images:
        drawn = deviation * jax.random.normal(key, (images.shape[0], axes.shape[0]))
        return images + (drawn @ axes.T)[:, None, None, :]

    return augment


def distort(
    translate: float = 2.0,
    scale: float = 0.15,
    squeeze: float = 0.15,
    shear: float = 0.15,
    background: float = -0.1,
) -> Augment:
    """A small random affine change of each image, for digits.

    LeCun et al. (1998), section III.B: combinations of translation, scaling,
    squeezing (compressed one way, stretched the other) and horizontal shearing.
    The paper gives no amounts; here they are drawn uniformly within bounds.

    Args:
      translate: maximum shift along each axis, in pixels.
      scale: maximum relative change of size.
      squeeze: maximum relative stretch of the height; the width changes inversely.
      shear: maximum horizontal shift per row, in pixels.
      background: value of pixels from outside the image.

    Returns:
      Function of a key and images (n, h, w, c), resampled bilinearly.

    Raises:
      ConfigError: an amount is negative, or so large that it inverts the image.
    """
    amounts = {"scale": scale, "squeeze": squeeze, "shear": shear}
    for name, value in {"translate": translate, **amounts}.items():
        if value < 0 or (name in amounts and value >= 1):
            raise names.ConfigError(f"augment: {name} {value} is out of range")

    def augment(key: Key[Array, ""], images: Images) -> Images:
        count, height, width, _ = images.shape
        bounds = jnp.array([[translate, translate, scale, squeeze, shear]])
        drawn = bounds * jax.random.uniform(key, (count, 5), minval=-1.0)
        down, across, grow, stretch, slant = drawn.T[..., None, None]
        middle = (height - 1) / 2, (width - 1) / 2
        rows = jnp.arange(height, dtype=jnp.float32)[None, :, None] - middle[0]
        columns = jnp.arange(width, dtype=jnp.float32)[None, None, :] - middle[1]
        # source coordinates of each pixel of the result
        source_rows = (rows - down) / ((1 + grow) * (1 + stretch))
        source_columns = (columns - across) * (1 + stretch) / (1 + grow)
        source_columns = source_columns - slant * source_rows
        shape = (count, height, width)
        places = jnp.stack(
            [
                jnp.broadcast_to(source_rows + middle[0], shape),
                jnp.broadcast_to(source_columns + middle[1], shape),
            ],
            1,
        )

        def resample(image, place):
            return jax.scipy.ndimage.map_coordinates(
                image, [place[0], place[1]], order=1, cval=background
            )

        over_channels = jax.vmap(resample, (-1, None), -1)
        return jax.vmap(over_channels)(images, places)

    return augment


TABLE: dict[str, Callable[..., Any]] = {
    "none": none,
    "crop_flip": crop_flip,
    "pca_colour": pca_colour,
    "distort": distort,
}


def build(section: Mapping[str, Any], statistics: Statistics | None = None) -> Augment:
    """Build the function of a config section ``augment``.

    Args:
      section: ``name`` (of `TABLE`, or ``package.module:function``) and its
        fields.
      statistics: statistics of the training images, for functions that need them.

    Returns:
      Pure function ``(key, float images (n, h, w, c)) -> images``.

    Raises:
      ConfigError: unknown name, field or value.
    """
    supplied = {} if statistics is None else {"statistics": statistics}
    return names.build("augment", section, TABLE, **supplied)
