"""Layers shared by the networks: convolution, normalisation, ReLU, input checks.

Images are NHWC, kernels HWIO. Parameters, batch-norm statistics and batch-norm
arithmetic are float32; ``dtype`` sets the type of all other computation.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax import names
from cnn_jax.kernels import convolution, plain
from cnn_jax.models.initializers import he_normal
from cnn_jax.models.normalization import Sharing, normalize

ModuleDef = Callable[..., Any]
Images = Float[Array, "batch height width channels"]
# A layer's output: another spatial size and number of channels than `Images`.
FeatureMaps = Float[Array, "batch rows columns features"]


def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Rectified linear unit, max(x, 0); its derivative at 0 is 0.

    Implemented as a select. XLA's CPU backend treats a maximum as free and fuses a
    copy into every consumer. In a residual net each weight gradient would then
    recompute the whole chain of additions of its stage, at a cost quadratic in the
    depth; a select is computed once. The derivative uses the output, which the next
    layer stores anyway. NaNs propagate.
    """
    return nn.relu(x) if plain.asked() else _select(x)


@jax.custom_jvp
def _select(x: Array) -> Array:
    return jnp.where(x <= 0, jnp.zeros_like(x), x)


@_select.defjvp
def _select_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = _select(*primals)
    # With one axis for all pixels, because a bias before the ReLU sums the gradient:
    # XLA's CPU backend takes ten times as long to sum over batch, rows and columns.
    pixels = (-1, y.shape[-1]) if y.ndim == 4 and y.size else y.shape
    flat, tangent = y.reshape(pixels), tangents[0].reshape(pixels)
    return y, jnp.where(flat == 0, jnp.zeros_like(tangent), tangent).reshape(y.shape)


# Padding is an int, pixels per side: (k - 1) / 2 preserves the size for an odd kernel
# k. With a stride it stays symmetric, whereas linen's 'SAME' pads unevenly.
Conv: ModuleDef = partial(
    nn.Conv,
    kernel_init=he_normal,
    conv_general_dilated=convolution.conv_general_dilated,
)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) over groups of images.

    ``y = (x - mean) / sqrt(var + epsilon) * scale + bias`` with the statistics of
    one group of images: the whole batch (``groups=1``), one of ``groups`` equal
    parts of it, or, with ``axis_name``, the batches of several devices together.
    The running statistics average over all groups. The running variance is
    unbiased, as in torch.

    Attributes:
      momentum: weight of the old running average (torch's 0.1 is 0.9 here).
      epsilon: added to the variance.
      groups: number of parts a batch is split into, each with separate
        statistics; it must divide the batch.
      axis_name: mapped axis over which statistics are shared; '' for none.
      axis_index_groups: parts of that axis that share statistics; () for all.
      scale_init: initialiser of the scale; with zeros a branch initially outputs 0.
      dtype: type of the output; arithmetic is float32.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    groups: int = 1
    axis_name: str = ""
    axis_index_groups: Sequence[Sequence[int]] = ()
    scale_init: Any = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *space channels"], train: bool
    ) -> Float[Array, "batch *space channels"]:
        """Normalise; in training also update the running statistics.

        Args:
          x: activations, channels last.
          train: if true, use and record the batch statistics; otherwise use the
            running statistics.

        Returns:
          Array of the shape of ``x`` and type ``dtype``.

        Raises:
          ValueError: the batch does not divide into ``groups``.
        """
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train:
            factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            shift = bias - running_mean.value * factor
            y = x.astype(jnp.float32) * _to_rank(factor, x.ndim) + _to_rank(
                shift, x.ndim
            )
            return y.astype(self.dtype)

        if x.shape[0] % self.groups:
            raise ValueError(
                f"batch norm: batch size {x.shape[0]} is not divisible by "
                f"{self.groups} groups"
            )
        # The mapped axis over devices does not exist during initialisation.
        axis_name = "" if self.is_initializing() else self.axis_name
        sharing = Sharing(self.epsilon, axis_name, self.axis_index_groups)
        grouped = x.reshape(self.groups, -1, channels)
        y, mean, var = normalize(grouped, scale, bias, sharing)
        if not self.is_initializing():
            count = grouped.shape[1] * sharing.devices()
            unbiased = var * (count / max(count - 1, 1))
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean.mean(0)
            running_var.value = keep * running_var.value + (1 - keep) * unbiased.mean(0)
        return y.reshape(x.shape).astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018): statistics of each image separately.

    ``y = (x - mean) / sqrt(var + epsilon) * scale + bias`` with statistics over all
    pixels and the ``channels / groups`` adjacent channels of a group. Training and
    evaluation behave alike. One group gives layer norm; as many groups as channels
    gives instance norm.

    Attributes:
      groups: number of channel groups (32 in the paper); it must divide the
        channels of every layer.
      epsilon: added to the variance.
      scale_init: initialiser of the scale; with zeros a branch initially outputs 0.
      dtype: type of the output; arithmetic is float32.
    """

    groups: int = 32
    epsilon: float = 1e-5
    scale_init: Any = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *space channels"], train: bool
    ) -> Float[Array, "batch *space channels"]:
        """Normalise.

        Args:
          x: activations, channels last.
          train: unused.

        Returns:
          Array of the shape of ``x`` and type ``dtype``.

        Raises:
          ConfigError: the channels do not divide into ``groups``.
        """
        channels = x.shape[-1]
        if self.groups < 1 or channels % self.groups:
            raise names.ConfigError(
                f"norm 'group': the {channels} channels of {'/'.join(self.path)} are "
                f"not divisible by {self.groups} groups"
            )
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        grouped = (x.shape[0], -1, self.groups, channels // self.groups)
        wide = x.astype(jnp.float32).reshape(grouped)
        centred = wide - wide.mean((1, 3), keepdims=True)
        var = jnp.square(centred).mean((1, 3), keepdims=True)
        y = (centred * jax.lax.rsqrt(var + self.epsilon)).reshape(x.shape)
        axes = range(x.ndim - 1)
        y = y * jnp.expand_dims(scale, axes) + jnp.expand_dims(bias, axes)
        return y.astype(self.dtype)


NORMS: dict[str, ModuleDef] = {"batch": BatchNorm, "group": GroupNorm}
# Set by the run's ``parallel.bn_group_size``, which defines the groups of images.
SHARED = ("groups", "axis_name", "axis_index_groups")


def norm_of(
    section: str | Mapping[str, Any], batch_norm: ModuleDef = BatchNorm
) -> ModuleDef:
    """The normalisation module for a network's ``norm`` section.

    Args:
      section: a name of `NORMS`, ``package.module:Class``, or a section with
        ``name`` and fields.
      batch_norm: the module that 'batch' selects.

    Returns:
      A module with the fields ``dtype``, ``name`` and ``scale_init``, called with
      (x, train).

    Raises:
      ConfigError: unknown name, field or value.
    """
    name = section if isinstance(section, str) else section.get("name")
    given = ("dtype", "scale_init", *(SHARED if name == "batch" else ()))
    return names.configure("norm", section, {**NORMS, "batch": batch_norm}, given)


def global_average_pool(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch channels"]:
    """Mean over all pixels, in float32 (Lin et al. 2013, section 3.2)."""
    return x.astype(jnp.float32).mean((1, 2))


def check_fields(module: nn.Module) -> None:
    """Reject fields of the wrong type or outside their choices.

    Args:
      module: a network; its annotations define the schema.

    Raises:
      ConfigError: a field has the wrong type, or ``num_classes`` is not positive.
    """
    kind = type(module).__name__
    fields = {
        field.name: getattr(module, field.name)
        for field in dataclasses.fields(module)
        if field.name not in ("parent", "name")
    }
    names.check_fields(kind, type(module), fields)
    if fields["num_classes"] < 1:
        raise names.ConfigError(
            f"{kind}: num_classes must be positive, got {fields['num_classes']}"
        )


def check_images(
    module: nn.Module, x: Array, first: str, size: int = 0, least: int = 1
) -> None:
    """Reject a batch that a network cannot process, with a one-line message.

    Args:
      module: the network, bound to its variables.
      x: its input.
      first: path ('stem/conv') of its first convolution, whose kernel, once
        initialised, fixes the number of input channels.
      size: height and width that its dense layers require; 0 for any.
      least: smallest height and width that leave every layer at least one pixel.

    Raises:
      ConfigError: not (n, height, width, channels), another size, or another
        number of channels than the net was initialised with.
    """
    kind = type(module).__name__
    if x.ndim != 4:
        raise names.ConfigError(
            f"{kind} expects images (n, height, width, channels), "
            f"got an array of shape {x.shape}"
        )
    if size and x.shape[1:3] != (size, size):
        raise names.ConfigError(
            f"{kind} expects images of {size} x {size} pixels, "
            f"got {x.shape[1]} x {x.shape[2]}"
        )
    if min(x.shape[1:3]) < least:
        raise names.ConfigError(
            f"{kind} expects images of at least {least} x {least} pixels, "
            f"got {x.shape[1]} x {x.shape[2]}"
        )
    layer = module.variables.get("params", {})
    for part in first.split("/"):
        layer = layer.get(part, {})
    if "kernel" in layer and layer["kernel"].shape[2] != x.shape[3]:
        raise names.ConfigError(
            f"{kind} was initialised for images with {layer['kernel'].shape[2]} "
            f"channels, got {x.shape[3]}"
        )


def _to_rank(vector: Array, rank: int) -> Array:
    """Reshape a vector to ``rank`` axes, all but the last of size 1."""
    return vector.reshape((1,) * (rank - 1) + vector.shape)
