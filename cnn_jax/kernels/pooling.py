"""Max-pooling and its derivative by the compiled extension, as primitives of jax.

    largest   images           -> maps, places   the pooling
    route     places, gradient -> images         its derivative, transposed

The derivative picks pixels by their places. It is linear and the transpose of `route`,
so derivatives of any order exist in both modes.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad
from jaxtyping import Array, Float, UInt8

from cnn_jax.kernels import extension, onednn
from cnn_jax.kernels.geometry import Geometry

Images = Float[Array, "batch height width channels"]
FeatureMaps = Float[Array, "batch rows columns channels"]
Places = UInt8[Array, "batch rows columns channels"]


def computes(array: Images | FeatureMaps, geometry: Geometry) -> bool:
    """Whether the extension is there and computes arrays of this type and shape."""
    return (
        extension.library() == "onednn"
        and array.ndim == 4
        and array.dtype == jnp.float32
        and min(*array.shape, *geometry.outputs()) > 0
        and min(sum(geometry.padding, ())) >= 0
    )


def largest(images: Images, geometry: Geometry) -> tuple[FeatureMaps, Places]:
    """The largest pixel of each window.

    Args:
      images: (n, height, width, c).
      geometry: size of the images; taps, strides and padding (-inf) of the windows,
        which are square.

    Returns:
      The pixels (n, rows, columns, c), and the index of each in its window, row by
      row. The first of equal pixels counts, and NaN is larger than any number.
    """
    maps, places = onednn.bind(largest_p, images, geometry=geometry)
    return maps, places


def route(places: Places, gradient: FeatureMaps, geometry: Geometry) -> Images:
    """Add the gradient of each window to one pixel of the window.

    Args:
      places: index of that pixel in its window; (n, rows, columns, c).
      gradient: gradient of the pooled maps, of the same shape.
      geometry: as in `largest`.

    Returns:
      Gradient of the images (n, height, width, c). Windows add to a pixel in order.
    """
    return onednn.bind(route_p, places, gradient, geometry=geometry)


def pick(places: Places, images: Images, geometry: Geometry) -> FeatureMaps:
    """The pixel of each window that `places` names, 0 in the padding.

    Args:
      places: as in `route`.
      images: (n, height, width, c).
      geometry: as in `largest`.

    Returns:
      (n, rows, columns, c).
    """
    window, stride = geometry.taps[0], geometry.strides[0]
    images = jnp.pad(images, ((0, 0), *geometry.padding, (0, 0)))
    rows, columns = ((count - 1) * stride + 1 for count in geometry.outputs())
    picked = jnp.zeros(places.shape, images.dtype)
    for place in range(window * window):
        down, across = divmod(place, window)
        tap = images[:, down : down + rows : stride, across : across + columns : stride]
        picked = jnp.where(places == place, tap, picked)
    return picked


largest_p = Primitive("cnn_jax_largest")
largest_p.multiple_results = True
route_p = Primitive("cnn_jax_route")


def _largest_abstract(images: Any, *, geometry: Geometry) -> tuple[Any, Any]:
    assert images.dtype == jnp.float32  # the compiled function relies on these
    assert geometry.taps[0] == geometry.taps[1] <= 16
    assert geometry.strides[0] == geometry.strides[1]
    shape = (images.shape[0], *geometry.outputs(), images.shape[3])
    maps = images.update(shape=shape, weak_type=False)
    return maps, maps.update(dtype=jnp.dtype("uint8"))


def _route_abstract(places: Any, gradient: Any, *, geometry: Geometry) -> Any:
    assert places.shape == gradient.shape
    assert (places.dtype, gradient.dtype) == (jnp.uint8, jnp.float32)
    shape = (gradient.shape[0], *geometry.size, gradient.shape[3])
    return gradient.update(shape=shape, weak_type=False)


def _call(primitive: Primitive, *operands: Array, geometry: Geometry) -> Any:
    results = jax.eval_shape(
        partial(onednn.bind, primitive, geometry=geometry), *operands
    )
    windows = (geometry.taps[0], geometry.strides[0], *geometry.padding[0][:1])
    return jax.ffi.ffi_call(primitive.name, results)(
        *operands,
        windows=np.array((*windows, geometry.padding[1][0]), np.int64),
    )


def _batch(
    primitive: Primitive, operands: Any, axes: Any, *, geometry: Geometry
) -> tuple[Any, Any]:
    apply = partial(onednn.bind, primitive, geometry=geometry)
    size = next(
        x.shape[axis]
        for x, axis in zip(operands, axes, strict=True)
        if axis is not None
    )
    if size == 0:
        results = jax.tree.map(
            lambda one: jnp.zeros((0, *one.shape), one.dtype),
            jax.eval_shape(apply, *onednn.members(operands, axes)),
        )
    else:
        merged = []
        for x, axis in zip(operands, axes, strict=True):
            if axis is None:
                x, axis = jnp.broadcast_to(x, (size, *x.shape)), 0
            x = jnp.moveaxis(x, axis, 0)
            merged.append(x.reshape(-1, *x.shape[2:]))
        results = jax.tree.map(
            lambda x: x.reshape(size, -1, *x.shape[1:]), apply(*merged)
        )
    return results, jax.tree.map(lambda _: 0, results)


def _largest_jvp(primals: Any, tangents: Any, *, geometry: Geometry) -> Any:
    [images], [tangent] = primals, tangents
    maps, places = largest(images, geometry)
    none = ad.Zero(jax.typeof(places).to_tangent_aval())
    if type(tangent) is ad.Zero:
        return [maps, places], [ad.Zero(jax.typeof(maps)), none]
    return [maps, places], [pick(places, tangent, geometry), none]


def _route_jvp(primals: Any, tangents: Any, *, geometry: Geometry) -> Any:
    (places, gradient), (_, tangent) = primals, tangents
    images = route(places, gradient, geometry)
    if type(tangent) is ad.Zero:
        return images, ad.Zero(jax.typeof(images))
    return images, route(places, tangent, geometry)


def _route_transpose(
    images: Any, places: Array, gradient: Any, *, geometry: Geometry
) -> tuple[None, Any]:
    if type(images) is ad.Zero:
        return None, ad.Zero(gradient.aval)
    return None, pick(places, images, geometry)


for _primitive, _abstract in (
    (largest_p, _largest_abstract),
    (route_p, _route_abstract),
):
    onednn.define(
        _primitive, _abstract, partial(_call, _primitive), partial(_batch, _primitive)
    )
ad.primitive_jvps[largest_p] = _largest_jvp
ad.primitive_jvps[route_p] = _route_jvp
ad.primitive_transposes[route_p] = _route_transpose
