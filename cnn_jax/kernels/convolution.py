"""Convolution: `lax.conv_general_dilated`, by the fastest kernel of this machine.

On a CPU, oneDNN computes the convolutions that it supports (`cnn_jax.kernels.onednn`).
Without oneDNN, XLA computes them in forms that are fast there (`cnn_jax.kernels.xla`).
Type and static shape determine the choice at trace time. Other backends, code within
`plain.definitions`, and operands other than NHWC image batches use lax unchanged.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from cnn_jax.kernels import extension, onednn, plain, xla
from cnn_jax.kernels.geometry import Geometry

_LAYOUT = ("NHWC", "HWIO", "NHWC")


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
    """A faster `lax.conv_general_dilated`.

    Intended for the field ``conv_general_dilated`` of linen's convolutions.

    Args:
      lhs: images (n, height, width, channels).
      rhs: kernel (rows, columns, channels / groups, features).
      window_strides: strides of rows and columns.
      padding: 'SAME', 'VALID', or (before, after) for rows and columns.
      lhs_dilation: as in lax, like all arguments below.
      rhs_dilation: spacing of the kernel's taps.
      dimension_numbers: the layout of images and kernel.
      feature_group_count: number of independent groups of channels.
      precision: precision of matrix units; no effect on CPU.

    Returns:
      Feature maps (n, rows, columns, features).
    """
    usual = (
        jax.default_backend() == "cpu"
        and not plain.asked()
        and lhs.ndim == 4
        and lhs.dtype == rhs.dtype
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and _is_layout(lhs, rhs, dimension_numbers)
        and all(step == 1 for step in lhs_dilation or ())
        and feature_group_count > 0
        and 0 not in (*lhs.shape, *rhs.shape)
    )
    if usual:
        down, across = rhs_dilation or (1, 1)
        if isinstance(padding, str):
            reach = (rhs.shape[0] - 1) * down + 1, (rhs.shape[1] - 1) * across + 1
            padding = lax.padtype_to_pads(
                lhs.shape[1:3], reach, window_strides, padding
            )
        (top, bottom), (left, right) = padding
        geometry = Geometry(
            size=(lhs.shape[1], lhs.shape[2]),
            taps=(rhs.shape[0], rhs.shape[1]),
            strides=(window_strides[0], window_strides[1]),
            padding=((int(top), int(bottom)), (int(left), int(right))),
            dilation=(down, across),
            groups=feature_group_count,
        )
        if extension.library() == "onednn":
            if onednn.computes(lhs, rhs, geometry):
                return onednn.convolve(lhs, rhs, geometry)
        elif xla.computes(geometry) and not plain.asked(lhs, rhs):
            return xla.convolve(lhs, rhs, geometry)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
    )


def _is_layout(lhs: Array, rhs: Array, dimension_numbers: Any) -> bool:
    asked, own = (
        lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
        for numbers in (dimension_numbers, _LAYOUT)
    )
    return asked == own
