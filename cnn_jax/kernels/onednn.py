"""Convolution by oneDNN, as three primitives of jax.

    maps      images, kernel -> maps       the convolution
    images    kernel, maps   -> images     its derivative by the images, transposed
    kernel    images, maps   -> kernel     its derivative by the kernel, transposed

Each is linear in both operands, and its derivatives are the other two. Derivatives of
any order therefore exist in both modes. The leading axis of all arrays, the stack,
counts independent convolutions of one shape. `jax.vmap` extends the stack, or the
batch if the kernel is shared.
"""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from cnn_jax.kernels import extension
from cnn_jax.kernels.geometry import Geometry

Images = Float[Array, "batch height width channels"]
Kernel = Float[Array, "taps_down taps_across share features"]
Maps = Float[Array, "batch rows columns features"]
_LANES = 8  # float32 values in a vector of AVX2; `kChannels` in `onednn.cc`
_TYPES = {"float32": 0, "bfloat16": 1}


def computes(images: Images, kernel: Kernel, geometry: Geometry) -> bool:
    """Whether oneDNN supports a convolution and both of its derivatives.

    Args:
      images: (n, height, width, channels); only type and shape matter.
      kernel: (rows, columns, channels / groups, features); likewise.
      geometry: how the kernel slides over the images.
    """
    if images.dtype != kernel.dtype or images.dtype.name not in _TYPES:
        return False
    maps = (images.shape[0], *geometry.outputs(), kernel.shape[3])
    padding = sum(geometry.padding, ())
    if min(*images.shape, *kernel.shape, *maps) < 1 or min(padding) < 0:
        return False
    return extension.computes(
        (
            *(*images.shape, *kernel.shape, *maps),
            *(*geometry.strides, *padding, *geometry.dilation),
            *(geometry.groups, _TYPES[images.dtype.name]),
        )
    )


def convolve(images: Images, kernel: Kernel, geometry: Geometry) -> Maps:
    """A convolution (cross-correlation) that `computes` accepts.

    Args:
      images: (n, height, width, channels).
      kernel: (rows, columns, channels / groups, features).
      geometry: how the kernel slides over the images.

    Returns:
      Feature maps (n, rows, columns, features).
    """
    return bind(maps_p, images[None], kernel[None], geometry=geometry)[0]


maps_p = Primitive("cnn_jax_maps")
images_p = Primitive("cnn_jax_images")
kernel_p = Primitive("cnn_jax_kernel")


def bind(primitive: Primitive, *operands: Array, geometry: Geometry) -> Any:
    """Apply a primitive."""
    # Within a shard_map that tracks which values vary over which mesh axes, all
    # operands must vary over the same axes. The transpose of the cast sums gradients.
    varying = [jax.typeof(x).mat.varying for x in operands]
    axes = frozenset().union(*varying)
    cast = [
        lax.pcast(x, tuple(axes - own), to="varying")
        for x, own in zip(operands, varying, strict=True)
    ]
    return primitive.bind(*cast, geometry=geometry)


def _shape(
    primitive: Primitive, left: Any, right: Any, geometry: Geometry
) -> tuple[int, ...]:
    """Shape of the result."""
    stack, channels = left.shape[0], left.shape[4]
    if primitive is maps_p:
        return (stack, left.shape[1], *geometry.outputs(), right.shape[4])
    if primitive is images_p:
        channels = left.shape[3] * geometry.groups
        return (stack, right.shape[1], *geometry.size, channels)
    return (stack, *geometry.taps, channels // geometry.groups, right.shape[4])


def _abstract(
    primitive: Primitive, left: Any, right: Any, *, geometry: Geometry
) -> Any:
    if left.dtype != right.dtype or left.shape[0] != right.shape[0]:
        raise TypeError(f"{primitive.name}: {left} and {right} differ in type or stack")
    shape = _shape(primitive, left, right, geometry)
    return left.update(shape=shape, weak_type=False)


def _call(
    primitive: Primitive, left: Array, right: Array, *, geometry: Geometry
) -> Array:
    """Call oneDNN for the primitive.

    The FFI call returns an array with one axis for all pixels. XLA removes a reshape in
    front of a sum, and its CPU backend takes ten times as long for a sum over the axes
    of batch, rows and columns (batch norm's mean) as for the same sum over one.
    """
    shape = _shape(primitive, left, right, geometry)
    channels = padded = shape[-1]
    if primitive is images_p and geometry.groups == 1 and left.dtype == jnp.float32:
        # With all lanes of a vector in use oneDNN takes two thirds of the time.
        padded += -channels % _LANES
        left = jnp.pad(left, [(0, 0)] * 3 + [(0, padded - channels), (0, 0)])
    flat = (shape[0], math.prod(shape[1:-1]), padded)
    result = jax.ffi.ffi_call(primitive.name, jax.ShapeDtypeStruct(flat, left.dtype))(
        left,
        right,
        shape=np.array((*shape[:-1], padded), np.int64),
        strides=np.array(geometry.strides, np.int64),
        padding=np.array(geometry.padding, np.int64).reshape(4),
        dilation=np.array(geometry.dilation, np.int64),
        groups=np.int64(geometry.groups),
    )
    return result[..., :channels].reshape(shape)


@lru_cache(maxsize=1024)
def _compiled(primitive: Primitive, geometry: Geometry) -> Any:
    """The compiled primitive, for calls outside `jax.jit`."""
    return jax.jit(partial(bind, primitive, geometry=geometry))


def members(operands: Sequence[Array], axes: Sequence[int | None]) -> list[Any]:
    """Shape and type of one member of each operand of a `jax.vmap`."""
    return [
        x
        if axis is None
        else jax.ShapeDtypeStruct(x.shape[:axis] + x.shape[axis + 1 :], x.dtype)
        for x, axis in zip(operands, axes, strict=True)
    ]


def _batch(
    primitive: Primitive, operands: Any, axes: Any, *, geometry: Geometry
) -> tuple[Array, int]:
    (left, right), (left_axis, right_axis) = operands, axes
    size = next(
        x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None
    )
    kernel_axis = {maps_p: right_axis, images_p: left_axis, kernel_p: 0}[primitive]
    # With a shared kernel all images form one batch; otherwise the stack grows.
    into = 1 if kernel_axis is None else 0

    def merge(x: Array, axis: int | None) -> Array:
        if axis is None:
            if into == 1:
                return x
            x, axis = jnp.broadcast_to(x, (size, *x.shape)), 0
        x = jnp.moveaxis(x, axis, into)
        return x.reshape(*x.shape[:into], -1, *x.shape[into + 2 :])

    if size == 0:
        one, other = members(operands, axes)
        shape = _shape(primitive, one, other, geometry)
        return jnp.zeros((0, *shape), left.dtype), 0
    merged = merge(left, left_axis), merge(right, right_axis)
    out = bind(primitive, *merged, geometry=geometry)
    return out.reshape(*out.shape[:into], size, -1, *out.shape[into + 1 :]), into


def define(primitive: Primitive, abstract: Any, call: Any, batch: Any) -> None:
    """Define a primitive that calls a function of `onednn.cc`.

    Args:
      primitive: the primitive; its parameter is a geometry.
      abstract: shape and type of the results, from those of the operands.
      call: the call of the function.
      batch: the rule for `jax.vmap`.
    """
    primitive.def_abstract_eval(abstract)

    def compute(*operands: Array, geometry: Geometry) -> Any:
        with jax.disable_jit(False):  # otherwise this function would call itself
            return _compiled(primitive, geometry)(*operands)

    primitive.def_impl(compute)
    batching.primitive_batchers[primitive] = batch
    lowered = mlir.lower_fun(call, multiple_results=primitive.multiple_results)

    def lower(ctx: Any, *operands: Any, **parameters: Any) -> Any:
        if ctx.module_context.lowering_parameters.for_export:
            raise NotImplementedError(
                "jax.export cannot serialize functions of the compiled extension: "
                "trace the exported function within "
                "cnn_jax.kernels.plain.definitions(), or set "
                f"{extension.SWITCH}=false"
            )
        return lowered(ctx, *operands, **parameters)

    mlir.register_lowering(primitive, lower, platform="cpu")


for _primitive in (maps_p, images_p, kernel_p):
    define(
        _primitive,
        partial(_abstract, _primitive),
        partial(_call, _primitive),
        partial(_batch, _primitive),
    )

ad.defbilinear(
    maps_p,
    lambda maps, images, kernel, **how: bind(images_p, kernel, maps, **how),
    lambda maps, images, kernel, **how: bind(kernel_p, images, maps, **how),
)
ad.defbilinear(
    images_p,
    lambda images, kernel, maps, **how: bind(kernel_p, images, maps, **how),
    lambda images, kernel, maps, **how: bind(maps_p, images, kernel, **how),
)
ad.defbilinear(
    kernel_p,
    lambda kernel, images, maps, **how: bind(images_p, kernel, maps, **how),
    lambda kernel, images, maps, **how: bind(maps_p, images, kernel, **how),
)
