"""Random changes to training images, on the device, inside the compiled step.

What is built here is a pure function ``(key, images) -> images`` of a batch
that has been preprocessed already.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cnn_jax import names

Images = Float[Array, "n h w c"]
Augment = Callable[[Any, Array], Array]


def none() -> Augment:
    """Images as they are."""

    def augment(key: Key[Array, ""], images: Images) -> Images:
        del key
        return images

    return augment


def crop_flip(pad: int = 4, flip: bool = True) -> Augment:
    """A random crop of the padded image and, half of the time, its mirror image.

    He et al. (2015), section 4.2 (after Lee et al. 2015): 4 pixels of zeros on
    each side of the normalised image, then a crop of the old size.

    Args:
      pad: pixels of zeros on each side; 0 for no crop.
      flip: mirror left to right with probability 1/2.

    Returns:
      Function of a key and images (n, h, w, c), each image drawn for itself.

    Raises:
      ConfigError: pad is negative.
    """
    if pad < 0:
        raise names.ConfigError(f"augment: pad {pad} is negative")

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
        return images

    return augment


TABLE = {"none": none, "crop_flip": crop_flip}


def build(section: Mapping[str, Any]) -> Augment:
    """The function that a config section ``augment`` describes.

    Args:
      section: ``name`` ('none', 'crop_flip', ``package.module:function``) and
        its fields.

    Returns:
      Pure function ``(key, float images (n, h, w, c)) -> images``.

    Raises:
      ConfigError: unknown name, field or value.
    """
    return names.build("augment", section, TABLE)
