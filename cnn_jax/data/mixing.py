"""Training images mixed in pairs, on the device, inside the compiled step.

Each entry of `TABLE` builds a pure function ``(key, images) -> (images, partner,
share)`` of an augmented batch. The loss of an example is ``share`` times the loss for
its own label plus ``1 - share`` times the loss for its partner's label. ``share`` is
one scalar. Each device mixes its own part of the batch: it draws its own share and
pairs only its own images.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from cnn_jax import names

Images = Float[Array, "n h w c"]
Mixed = tuple[Images, Int[Array, " n"], Float[Array, ""]]
Mix = Callable[[Any, Array], Mixed]


def mixup(alpha: float = 0.2) -> Mix:
    """Weighted means of pairs of images.

    Zhang, Cisse, Dauphin and Lopez-Paz (2018), "mixup: beyond empirical risk
    minimization", section 2: ``share x[i] + (1 - share) x[j]``, with one share for
    the images of a device. (The authors' code draws one per batch.)

    Args:
      alpha: the share is drawn from Beta(alpha, alpha).

    Returns:
      Function of a key and images (n, h, w, c).

    Raises:
      ConfigError: alpha is not positive.
    """
    _check(alpha)

    def mix(key: Key[Array, ""], images: Images) -> Mixed:
        share_key, pair_key = jax.random.split(key)
        share = jax.random.beta(share_key, alpha, alpha)
        partner = jax.random.permutation(pair_key, len(images))
        return share * images + (1 - share) * images[partner], partner, share

    return mix


def cutmix(alpha: float = 1.0) -> Mix:
    """Replace a rectangle of each image by its partner's.

    Yun et al. (2019), "CutMix: regularization strategy to train strong classifiers
    with localizable features", section 3.1. The rectangle has the image's aspect
    ratio and a share 1 - Beta(alpha, alpha) of its area, drawn once for the images of
    a device. It is clipped to the image, and ``share`` is the share of pixels kept.

    Args:
      alpha: parameter of the beta distribution.

    Returns:
      Function of a key and images (n, h, w, c).

    Raises:
      ConfigError: alpha is not positive.
    """
    _check(alpha)

    def mix(key: Key[Array, ""], images: Images) -> Mixed:
        share_key, place_key, pair_key = jax.random.split(key, 3)
        side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
        centre = jax.random.uniform(place_key, (2,))
        inside = [
            jnp.abs((jnp.arange(length) + 0.5) / length - middle) < side / 2
            for length, middle in zip(images.shape[1:3], centre, strict=True)
        ]
        cut = inside[0][:, None] & inside[1][None, :]
        partner = jax.random.permutation(pair_key, len(images))
        mixed = jnp.where(cut[None, :, :, None], images[partner], images)
        return mixed, partner, 1 - cut.mean()

    return mix


def _check(alpha: float) -> None:
    if not 0 < alpha < float("inf"):
        raise names.ConfigError(f"mix.alpha {alpha} is not positive")


TABLE: dict[str, Callable[..., Any]] = {"mixup": mixup, "cutmix": cutmix}
