"""Convolution by XLA, in the forms that are fast on a CPU.

XLA's CPU backend is fast for undilated convolutions in NHWC/HWIO order. In the order
of the gradients that autodiff produces it is 10 to 30 times slower, especially inside
loops. The static shape of each convolution therefore selects a form whose derivatives
are fast as well:

    form        chosen for                           what is computed
    pointwise   1x1 kernels                          one matrix product
    dense       images no larger than the kernel     one product with the kernel
                                                     laid out as a matrix from
                                                     all inputs to all outputs
    direct      all others                           `lax.conv_general_dilated`, with
                                                     a derivative in that order; in
                                                     tiles if there are few channels

Reverse mode of any order and forward-over-reverse mode (Hessian-vector products) are
supported; for forward mode alone, trace within `plain.definitions`.
"""

import functools
import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnn_jax.kernels.geometry import Geometry, Pair

Form = Literal["pointwise", "dense", "direct"]
Images = Float[Array, "batch height width channels"]
Maps = Float[Array, "batch rows columns features"]
Kernel = Float[Array, "taps_down taps_across channels features"]
# A kernel of one group, or of several.
Kernels = Float[Array, "taps_down taps_across share features"]

_NO_PADDING = ((0, 0), (0, 0))
_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Maximum number of ordinary convolutions that a grouped one is split into.
_MOST_GROUPS = 8
# XLA takes several times as long per operation with no more channels than this, and
# is fast from so many features per tile.
_FEW_CHANNELS, _TILE_FEATURES = 16, 24


def computes(geometry: Geometry) -> bool:
    """Whether a form exists for this geometry."""
    return (
        geometry.dilation == (1, 1)
        and geometry.groups <= _MOST_GROUPS
        and min(geometry.outputs()) > 0
    )


def convolve(images: Images, kernel: Kernels, geometry: Geometry) -> Maps:
    """A convolution (cross-correlation) in the form that `form` chooses.

    Args:
      images: (n, height, width, channels).
      kernel: (rows, columns, channels / groups, features).
      geometry: how the kernel slides over the images.

    Returns:
      Feature maps (n, rows, columns, features).
    """
    groups = geometry.groups
    one = geometry._replace(groups=1)
    # Matrix products use jax's derivatives, direct convolutions a custom one.
    compute: Callable[..., Maps] = (
        _differentiable if form(one) == "direct" else _compute
    )
    parts = zip(*(jnp.split(x, groups, axis=3) for x in (images, kernel)), strict=True)
    return jnp.concatenate([compute(*part, one) for part in parts], axis=3)


def form(geometry: Geometry) -> Form:
    """The form of a convolution: 'pointwise', 'dense' or 'direct'."""
    if geometry.taps == (1, 1) and geometry.padding == _NO_PADDING:
        return "pointwise"
    if geometry.size[0] * geometry.size[1] <= geometry.taps[0] * geometry.taps[1]:
        return "dense"
    return "direct"


def _compute(images: Images, kernel: Kernel, geometry: Geometry) -> Maps:
    """One group, in plain operations."""
    forms = {"pointwise": _pointwise, "dense": _dense, "direct": _direct}
    return forms[form(geometry)](images, kernel, geometry)


def _pointwise(images: Images, kernel: Kernel, geometry: Geometry) -> Maps:
    down, across = geometry.strides
    return images[:, ::down, ::across] @ kernel[0, 0]


def _dense(images: Images, kernel: Kernel, geometry: Geometry) -> Maps:
    rows, columns = geometry.outputs()
    maps = images.reshape(images.shape[0], -1) @ _matrix(kernel, geometry)
    return maps.reshape(images.shape[0], rows, columns, kernel.shape[3])


def _matrix(kernel: Kernel, geometry: Geometry) -> Float[Array, "inputs outputs"]:
    """A convolution as a matrix from all inputs to all outputs.

    Its shape is (height * width * channels, rows * columns * features).
    """
    (rows, columns), size = geometry.outputs(), geometry.size
    (down, across), (vertical, horizontal) = geometry.strides, geometry.padding
    # The weights of output i are a window of the kernel framed by zeros. The window
    # moves up by the stride as i moves down.
    top = max((rows - 1) * down - vertical[0], 0)
    left = max((columns - 1) * across - horizontal[0], 0)
    bottom = max(size[0] + vertical[0] - kernel.shape[0], 0)
    right = max(size[1] + horizontal[0] - kernel.shape[1], 0)
    framed = jnp.pad(kernel, ((top, bottom), (left, right), (0, 0), (0, 0)))
    top, left = top + vertical[0], left + horizontal[0]
    windows = [
        framed[
            top - i * down : top - i * down + size[0],
            left - j * across : left - j * across + size[1],
        ]
        for i in range(rows)
        for j in range(columns)
    ]
    inputs = size[0] * size[1] * kernel.shape[2]
    return jnp.stack(windows, axis=3).reshape(inputs, rows * columns * kernel.shape[3])


def _direct(images: Images, kernel: Kernel, geometry: Geometry) -> Maps:
    size = _tile(kernel.shape[2], kernel.shape[3], geometry)
    down, across = geometry.strides
    if size > 1:
        # Output t of a tile looks t strides further to the right.
        shifted = [
            jnp.pad(
                kernel, ((0, 0), (t * across, (size - 1 - t) * across), *_NO_PADDING)
            )
            for t in range(size)
        ]
        kernel = jnp.concatenate(shifted, axis=3)
    maps = _ordered(images, kernel, (down, across * size), geometry.padding)
    return maps.reshape(maps.shape[0], *geometry.outputs(), -1)


def _tile(channels: int, features: int, geometry: Geometry) -> int:
    """The number of neighbouring outputs of a row that are computed as one.

    The tile's kernel has as many times the features. A third of its products are with
    zeros at two outputs and a 3x3 kernel, yet XLA takes less time for them.

    Returns:
      A divisor of the number of columns; 1 for no tiles.
    """
    if max(channels, features) > _FEW_CHANNELS:
        return 1
    _, columns = geometry.outputs()
    room = geometry.size[1] + sum(geometry.padding[1]) - geometry.taps[1]
    # With a grey or RGB image there is little to do for each output.
    for size in range(4 if channels <= 4 else 2, 9):
        fits = (size - 1) * geometry.strides[1] <= room
        if columns % size == 0 and fits and size * features >= _TILE_FEATURES:
            return size
    return 1


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _differentiable(images: Images, kernel: Kernel, geometry: Geometry) -> Maps:
    """The direct form, with a derivative in the fast order.

    The derivative consists of plain operations, so it can be differentiated again.
    """
    return _direct(images, kernel, geometry)


def _forward(
    images: Images, kernel: Kernel, geometry: Geometry
) -> tuple[Maps, tuple[Images, Kernel]]:
    return _direct(images, kernel, geometry), (images, kernel)


def _backward(
    geometry: Geometry, residuals: tuple[Images, Kernel], gradient: Maps
) -> tuple[Images, Kernel]:
    images, kernel = residuals
    return (
        _image_gradient(kernel, gradient, geometry),
        _kernel_gradient(images, gradient, geometry),
    )


_differentiable.defvjp(_forward, _backward)


def _image_gradient(kernel: Kernel, gradient: Maps, geometry: Geometry) -> Images:
    """Gradient of the images: the output gradient under the flipped kernel.

    With stride s, pixel ``s u + a`` contributes to output ``u - d`` through tap
    ``s d + a + padding``. One kernel for each of the s phases a therefore slides over
    the gradient. All are features of one convolution, whose outputs are interleaved.
    """
    phases, pads = [], []
    for taps, stride, (before, _), length, count in zip(
        kernel.shape[:2],
        geometry.strides,
        geometry.padding,
        geometry.size,
        gradient.shape[1:3],
        strict=True,
    ):
        first = -((stride - 1 + before) // stride)
        last = (taps - 1 - before) // stride
        missing = -(stride * first + before)
        surplus = stride * (last - first + 1) - missing - taps
        phases.append((missing, surplus, last - first + 1))
        pads.append((last, -(-length // stride) - first - count))
    (top, bottom, rows), (left, right, columns) = phases
    down, across = geometry.strides
    channels, features = kernel.shape[2:]
    split = jnp.pad(kernel, ((top, bottom), (left, right), (0, 0), (0, 0)))
    split = split.reshape(rows, down, columns, across, channels, features)
    split = split[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    split = split.reshape(rows, columns, features, down * across * channels)
    _, high, wide, _ = gradient.shape
    slide = Geometry((high, wide), (rows, columns), padding=(pads[0], pads[1]))
    maps = _compute(gradient, split, slide)
    batch, rows, columns, _ = maps.shape
    maps = maps.reshape(batch, rows, columns, down, across, channels)
    maps = maps.transpose(0, 1, 3, 2, 4, 5)
    maps = maps.reshape(batch, rows * down, columns * across, channels)
    return maps[:, : geometry.size[0], : geometry.size[1]]


def _kernel_gradient(images: Images, gradient: Maps, geometry: Geometry) -> Kernel:
    """Gradient of the kernel: images and gradient, correlated over the batch.

    A convolution of the images, with batch and channels exchanged, whose kernel is the
    output gradient. XLA first lays out the windows of all images in memory. Large
    images are therefore processed in parts of the batch whose windows fit the cache.
    """
    area = gradient.shape[1] * gradient.shape[2]
    large = area >= 512 or (area >= 64 and images.shape[3] >= 32)
    pieces = math.gcd(8 if large else 1, images.shape[0])
    parts = zip(jnp.split(images, pieces), jnp.split(gradient, pieces), strict=True)
    return functools.reduce(operator.add, (_correlate(*p, geometry) for p in parts))


def _correlate(images: Images, gradient: Maps, geometry: Geometry) -> Kernel:
    """The kernel gradient of one part of the batch."""
    rows, columns = (
        (pads[0], (count - 1) * stride + width - length - pads[0])
        for pads, count, stride, width, length in zip(
            geometry.padding,
            gradient.shape[1:3],
            geometry.strides,
            geometry.taps,
            geometry.size,
            strict=True,
        )
    )
    correlated = _ordered(
        images.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        (rows, columns),
        dilation=geometry.strides,
    )
    return correlated.transpose(1, 2, 0, 3)


def _ordered(
    images: Array,
    kernel: Array,
    strides: Pair,
    padding: tuple[Pair, Pair],
    dilation: Pair = (1, 1),
) -> Array:
    """`lax.conv_general_dilated` on operands in an order and of sizes that are fast."""
    if any(
        # a crop, an output larger than the input, or a kernel larger than the input
        min(pads) < 0 or sum(pads) > step * (width - 1) or width > length
        for pads, step, width, length in zip(
            padding, dilation, kernel.shape[:2], images.shape[1:3], strict=True
        )
    ):
        config = ((0, 0, 0), *((*pads, 0) for pads in padding), (0, 0, 0))
        images = lax.pad(images, jnp.zeros((), images.dtype), config)
        padding = _NO_PADDING
    return lax.conv_general_dilated(
        images,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=_LAYOUT,
    )
