"""The derivative of max-pooling by the compiled extension, as a primitive of jax.

It is linear in the gradient, and its transpose picks each window's pixel again:
derivatives of any order therefore exist in both modes.
"""

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


def computes(gradient: FeatureMaps) -> bool:
    """Whether the extension is there and computes arrays of this type and size."""
    return (
        extension.library() == "onednn"
        and gradient.dtype == jnp.float32
        and gradient.size > 0
    )


def route(places: Places, gradient: FeatureMaps, geometry: Geometry) -> Images:
    """Add the gradient of each window to one pixel of the window.

    Args:
      places: index of that pixel in its window, row by row; (n, rows, columns, c).
      gradient: gradient of the pooled maps, of the same shape.
      geometry: size of the images; taps, strides and padding of the windows, which
        are square.

    Returns:
      Gradient of the images (n, height, width, c). Windows add to a pixel in order.
    """
    return onednn.bind(route_p, places, gradient, geometry)


def pick(places: Places, images: Images, geometry: Geometry) -> FeatureMaps:
    """The pixel of each window that `places` names, 0 in the padding.

    Args:
      places: as in `route`.
      images: (n, height, width, c).
      geometry: as in `route`.

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


route_p = Primitive("cnn_jax_route")


def _abstract(places: Any, gradient: Any, *, geometry: Geometry) -> Any:
    assert places.shape == gradient.shape  # the compiled function relies on these
    assert (places.dtype, gradient.dtype) == (jnp.uint8, jnp.float32)
    assert geometry.taps[0] == geometry.taps[1] <= 16
    assert geometry.strides[0] == geometry.strides[1]
    return gradient.update(shape=_shape(gradient, geometry), weak_type=False)


def _shape(gradient: Any, geometry: Geometry) -> tuple[int, ...]:
    """Shape of the images."""
    return (gradient.shape[0], *geometry.size, gradient.shape[3])


def _call(places: Array, gradient: Array, *, geometry: Geometry) -> Array:
    shape = _shape(gradient, geometry)
    numbers = {
        "window": geometry.taps[0],
        "stride": geometry.strides[0],
        "top": geometry.padding[0][0],
        "left": geometry.padding[1][0],
    }
    return jax.ffi.ffi_call(route_p.name, jax.ShapeDtypeStruct(shape, jnp.float32))(
        places, gradient, **{name: np.int64(value) for name, value in numbers.items()}
    )


def _batch(operands: Any, axes: Any, *, geometry: Geometry) -> tuple[Array, int]:
    size = next(
        x.shape[axis]
        for x, axis in zip(operands, axes, strict=True)
        if axis is not None
    )
    if size == 0:
        shape = _shape(onednn.members(operands, axes)[1], geometry)
        return jnp.zeros((0, *shape), jnp.float32), 0
    merged = []
    for x, axis in zip(operands, axes, strict=True):
        if axis is None:
            x, axis = jnp.broadcast_to(x, (size, *x.shape)), 0
        x = jnp.moveaxis(x, axis, 0)
        merged.append(x.reshape(-1, *x.shape[2:]))
    places, gradient = merged
    images = route(places, gradient, geometry)
    return images.reshape(size, -1, *images.shape[1:]), 0


def _jvp(primals: Any, tangents: Any, *, geometry: Geometry) -> tuple[Array, Any]:
    (places, gradient), (_, tangent) = primals, tangents
    images = route(places, gradient, geometry)
    if type(tangent) is ad.Zero:
        return images, ad.Zero(jax.typeof(images))
    return images, route(places, tangent, geometry)


def _transpose(
    images: Any, places: Array, gradient: Any, *, geometry: Geometry
) -> tuple[None, Any]:
    if type(images) is ad.Zero:
        return None, ad.Zero(gradient.aval)
    return None, pick(places, images, geometry)


onednn.define(route_p, _abstract, _call, _batch)
ad.primitive_jvps[route_p] = _jvp
ad.primitive_transposes[route_p] = _transpose
