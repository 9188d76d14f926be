"""Convolution on CPU: the same numbers as `lax.conv_general_dilated`, sooner.

On one core XLA's CPU backend has one fast convolution kernel (YNNPACK's; for
several cores see `cnn_jax.runtime.backend`) and takes it only when a convolution is
float32, undilated, in NHWC/HWIO order, has more than 16 channels on one side, and
no side of its kernel or output exceeds the input's. Whatever misses that falls to
a generic path 1.5 to 25 times slower: every layer of 16 channels, every map
smaller than the kernel, every gradient that autodiff writes in another order
(inside `scan` or `while` 10 to 30 times slower). So
each convolution is written, by its static shape, in the form that is fast:

    form        chosen for                           what is computed
    pointwise   1x1 kernels                          one matrix product
    dense       a map no larger than the kernel      one product with the kernel
                                                     laid out as a matrix from
                                                     all inputs to all outputs
    direct      all others                           `lax.conv_general_dilated`

With at most 16 channels on both sides the direct form works in tiles: `tile`
neighbouring outputs of a row as one output of so many times the channels. It has a
derivative of its own, whose convolutions are in canonical order too; the kernel's
is computed in `pieces` of the batch, which are added up. Milliseconds of one core,
jax 0.10.2, batch 128, 3x3: 16 to 16 channels at 32x32 6.7 -> 4.1, at 8x8
0.43 -> 0.26; 3 to 16 at 32x32 5.2 -> 1.1; 64 to 64 at 2x2, forward and backward,
5.5 -> 0.2.

On other backends all this is off and `lax.conv_general_dilated` does the work.
So it does for dilated, three-dimensional or otherwise laid out convolutions.
Derivatives are taken in reverse mode, any number of times, and forward mode over
reverse mode (Hessian-vector products); for forward mode alone trace within
`plain.definitions`.
"""

import functools
import math
import operator
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cnn_jax.kernels import extension, onednn, plain

Form = Literal["pointwise", "dense", "direct"]
Padding = tuple[tuple[int, int], tuple[int, int]]
Images = Float[Array, "batch height width channels"]
Maps = Float[Array, "batch rows columns features"]
Kernel = Float[Array, "taps_down taps_across channels features"]

_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
# YNNPACK declines where neither side has more channels than this.
_NARROW = 16
# Grouped convolutions are split into this many ordinary ones at most.
_MOST_GROUPS = 8


class Geometry(NamedTuple):
    """What a convolution's form depends on, beside its operands.

    Attributes:
      strides: of rows and columns.
      padding: pixels (before, after) the rows and the columns.
    """

    strides: tuple[int, int]
    padding: Padding

    def outputs(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
        """Output rows and columns for inputs of ``size`` under ``kernel``."""
        rows, columns = (
            (length + sum(pads) - width) // stride + 1
            for length, width, stride, pads in zip(
                size, kernel, self.strides, self.padding, strict=True
            )
        )
        return rows, columns


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> Array:
    """`lax.conv_general_dilated`, in the form that is fast on this backend.

    Meant for the field ``conv_general_dilated`` of linen's convolutions.

    Args:
      lhs: images (n, height, width, channels).
      rhs: kernel (rows, columns, channels / groups, features).
      window_strides: of rows and columns.
      padding: 'SAME', 'VALID', or (before, after) for rows and columns.
      lhs_dilation: as in lax; so is each of the following.
      rhs_dilation: spacing of the kernel's taps.
      dimension_numbers: the layout of images and kernel.
      feature_group_count: groups of channels that do not see each other.
      precision: of matrix units; the CPU has none.

    Returns:
      Feature maps (n, rows, columns, features).
    """
    ordinary = partial(
        lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    if plain.asked(lhs, rhs):
        return ordinary(lhs, rhs)
    if extension.library() == "onednn":
        described = _geometry(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
        )
        if described is not None and onednn.computes(lhs, rhs, described):
            return onednn.convolve(lhs, rhs, described)
        return ordinary(lhs, rhs)
    if (
        jax.default_backend() != "cpu"
        or lhs.ndim != 4
        or lhs.dtype != rhs.dtype
        or not jnp.issubdtype(lhs.dtype, jnp.floating)
        or lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) != _NHWC
        or any(step != 1 for step in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        or feature_group_count > _MOST_GROUPS
        or 0 in lhs.shape
    ):
        return ordinary(lhs, rhs)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(
            lhs.shape[1:3], rhs.shape[:2], window_strides, padding
        )
    rows, columns = ((int(before), int(after)) for before, after in padding)
    down, across = window_strides
    geometry = Geometry((down, across), (rows, columns))
    if min(geometry.outputs(lhs.shape[1:3], rhs.shape[:2])) < 1:
        return ordinary(lhs, rhs)
    if feature_group_count == 1:
        return _dispatch(lhs, rhs, geometry)
    parts = zip(
        jnp.split(lhs, feature_group_count, axis=3),
        jnp.split(rhs, feature_group_count, axis=3),
        strict=True,
    )
    return jnp.concatenate([_dispatch(*part, geometry) for part in parts], axis=3)


def _geometry(
    lhs: Array,
    rhs: Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    dimension_numbers: Any,
    groups: int,
) -> onednn.Geometry | None:
    """How the kernel slides, if these are two-dimensional images in jax's layout."""
    if (
        lhs.ndim != 4
        or any(step != 1 for step in lhs_dilation or ())
        or lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) != _NHWC
    ):
        return None
    down, across = rhs_dilation or (1, 1)
    if isinstance(padding, str):
        reach = [
            (t - 1) * d + 1 for t, d in zip(rhs.shape[:2], (down, across), strict=True)
        ]
        padding = lax.padtype_to_pads(lhs.shape[1:3], reach, strides, padding)
    (top, bottom), (left, right) = padding
    return onednn.Geometry(
        size=(lhs.shape[1], lhs.shape[2]),
        taps=(rhs.shape[0], rhs.shape[1]),
        strides=(strides[0], strides[1]),
        padding=(int(top), int(bottom), int(left), int(right)),
        dilation=(down, across),
        groups=groups,
    )


def form(images: Sequence[int], kernel: Sequence[int], geometry: Geometry) -> Form:
    """The form to compute a convolution in, by its static shape.

    Args:
      images: shape (n, height, width, channels).
      kernel: shape (rows, columns, channels, features).
      geometry: strides and padding.

    Returns:
      'pointwise', 'dense' or 'direct' (which tiles where `tile` says so).
    """
    if tuple(kernel[:2]) == (1, 1) and geometry.padding == ((0, 0), (0, 0)):
        return "pointwise"
    if images[1] * images[2] <= kernel[0] * kernel[1]:
        return "dense"
    return "direct"


def tile(images: Sequence[int], kernel: Sequence[int], geometry: Geometry) -> int:
    """How many outputs of a row are computed as one; 1 for no tiling.

    Tiling computes products with zeros (a third more at two outputs and a 3x3
    kernel) and gains the fast kernel, which wants some 32 features.

    Args:
      images: shape (n, height, width, channels).
      kernel: shape (rows, columns, channels, features).
      geometry: strides and padding.

    Returns:
      A divisor of the output's columns.
    """
    channels, features = kernel[2:]
    if max(channels, features) > _NARROW:
        return 1
    _, columns = geometry.outputs(images[1:3], kernel[:2])
    room = images[2] + sum(geometry.padding[1])
    for size in range(2, 9):
        fits = kernel[1] + (size - 1) * geometry.strides[1] <= room
        # A thin input (grey, RGB) leaves little to do for each output.
        enough = size >= 4 if channels <= 4 else True
        if columns % size == 0 and fits and enough and size * features >= 24:
            return size
    return 1


def convolve(images: Images, kernel: Kernel, geometry: Geometry) -> Maps:
    """A convolution (cross-correlation) in the form that `form` chooses.

    Args:
      images: (n, height, width, channels).
      kernel: (rows, columns, channels, features).
      geometry: strides and padding.

    Returns:
      Feature maps (n, rows, columns, features).
    """
    chosen = form(images.shape, kernel.shape, geometry)
    if chosen == "pointwise":
        down, across = geometry.strides
        return images[:, ::down, ::across] @ kernel[0, 0]
    if chosen == "dense":
        rows, columns = geometry.outputs(images.shape[1:3], kernel.shape[:2])
        matrix = kernel_matrix(kernel, images.shape[1:3], geometry)
        maps = images.reshape(images.shape[0], -1) @ matrix
        return maps.reshape(images.shape[0], rows, columns, kernel.shape[3])
    size = tile(images.shape, kernel.shape, geometry)
    if size == 1:
        return _canonical(images, kernel, geometry.strides, geometry.padding)
    down, across = geometry.strides
    # Output t of a tile looks t strides further to the right.
    shifted = [
        jnp.pad(
            kernel,
            ((0, 0), (t * across, (size - 1 - t) * across), (0, 0), (0, 0)),
        )
        for t in range(size)
    ]
    rows, columns, channels, features = shifted[0].shape
    wide = jnp.stack(shifted, axis=3).reshape(rows, columns, channels, -1)
    maps = _canonical(images, wide, (down, across * size), geometry.padding)
    return maps.reshape(*maps.shape[:2], maps.shape[2] * size, features)


def kernel_matrix(
    kernel: Kernel, size: Sequence[int], geometry: Geometry
) -> Float[Array, "inputs outputs"]:
    """A convolution as the matrix that takes all inputs to all outputs.

    Args:
      kernel: (rows, columns, channels, features).
      size: the input's rows and columns.
      geometry: strides and padding.

    Returns:
      (height * width * channels, output rows * output columns * features).
    """
    rows, columns = geometry.outputs(size, kernel.shape[:2])
    (down, across), (vertical, horizontal) = geometry
    # What output i puts on the inputs is a window of the kernel in a frame of
    # zeros; the window moves up by the stride as i moves down.
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


def _dispatch(images: Images, kernel: Kernel, geometry: Geometry) -> Maps:
    """Matrix products are differentiated by jax, convolutions by hand."""
    if form(images.shape, kernel.shape, geometry) == "direct":
        return _differentiable(images, kernel, geometry)
    return convolve(images, kernel, geometry)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _differentiable(images: Images, kernel: Kernel, geometry: Geometry) -> Maps:
    """`convolve`, with a derivative in canonical order.

    The derivative is made of plain operations, to be differentiated again.
    """
    return convolve(images, kernel, geometry)


def _forward(
    images: Images, kernel: Kernel, geometry: Geometry
) -> tuple[Maps, tuple[Images, Kernel]]:
    return convolve(images, kernel, geometry), (images, kernel)


def _backward(
    geometry: Geometry, residuals: tuple[Images, Kernel], gradient: Maps
) -> tuple[Images, Kernel]:
    images, kernel = residuals
    return (
        _image_gradient(kernel, gradient, images.shape[1:3], geometry),
        _kernel_gradient(images, gradient, kernel.shape[:2], geometry),
    )


_differentiable.defvjp(_forward, _backward)


def _image_gradient(
    kernel: Kernel, gradient: Maps, size: Sequence[int], geometry: Geometry
) -> Images:
    """Derivative by the images: the gradient under the flipped kernel.

    With a stride s, pixel ``s u + a`` has met the taps ``s d + a + padding`` of
    output ``u - d``: s kernels, one for each phase a, slide over the gradient,
    all as features of one convolution, whose maps are then interleaved.
    """
    phases, pads = [], []
    for taps, stride, (before, _), length, count in zip(
        kernel.shape[:2],
        geometry.strides,
        geometry.padding,
        size,
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
    maps = convolve(gradient, split, Geometry((1, 1), (pads[0], pads[1])))
    batch, rows, columns, _ = maps.shape
    maps = maps.reshape(batch, rows, columns, down, across, channels)
    maps = maps.transpose(0, 1, 3, 2, 4, 5)
    maps = maps.reshape(batch, rows * down, columns * across, channels)
    return maps[:, : size[0], : size[1]]


def _kernel_gradient(
    images: Images, gradient: Maps, taps: Sequence[int], geometry: Geometry
) -> Kernel:
    """Derivative by the kernel: images and gradient, correlated over the batch.

    A convolution of the images, channels as batch and batch as channels, with
    the gradient as its kernel; in pieces of the batch, which are added up.
    """
    count = pieces(images.shape, gradient.shape)
    parts = zip(jnp.split(images, count), jnp.split(gradient, count), strict=True)
    pieces_of_it = (_correlate(*part, taps, geometry) for part in parts)
    return functools.reduce(operator.add, pieces_of_it)


def pieces(images: Sequence[int], maps: Sequence[int]) -> int:
    """In how many pieces of the batch a kernel's derivative is computed.

    The windows of all images are laid out in memory first; those of a piece stay
    in the cache.

    Args:
      images: shape (n, height, width, channels).
      maps: shape (n, rows, columns, features).

    Returns:
      A divisor of the batch.
    """
    area = maps[1] * maps[2]
    worth = area >= 512 or (area >= 64 and images[3] >= 32)
    return math.gcd(8 if worth else 1, images[0])


def _correlate(
    images: Images, gradient: Maps, taps: Sequence[int], geometry: Geometry
) -> Kernel:
    """The derivative by the kernel of one piece."""
    rows, columns = (
        (pads[0], (count - 1) * stride + width - length - pads[0])
        for pads, count, stride, width, length in zip(
            geometry.padding,
            gradient.shape[1:3],
            geometry.strides,
            taps,
            images.shape[1:3],
            strict=True,
        )
    )
    correlated = _canonical(
        images.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        (rows, columns),
        dilation=geometry.strides,
    )
    return correlated.transpose(1, 2, 0, 3)


def _canonical(
    images: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int] = (1, 1),
) -> Array:
    """`lax.conv_general_dilated` on operands that the fast kernel accepts."""
    if any(
        # a crop, an output larger than the input, a kernel larger than it
        min(pads) < 0 or sum(pads) > step * (width - 1) or width > length
        for pads, step, width, length in zip(
            padding, dilation, kernel.shape[:2], images.shape[1:3], strict=True
        )
    ):
        images, padding = _pad(images, padding, (1, 1)), ((0, 0), (0, 0))
    return lax.conv_general_dilated(
        images,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=_NHWC,
    )


def _pad(images: Array, padding: Padding, spacing: tuple[int, int]) -> Array:
    """Zeros around (or a crop, where negative) and between the pixels."""
    (down, across), (rows, columns) = spacing, padding
    config = ((0, 0, 0), (*rows, down - 1), (*columns, across - 1), (0, 0, 0))
    return lax.pad(images, jnp.zeros((), images.dtype), config)
