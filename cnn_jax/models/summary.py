"""A network's layers, parameters and multiply-accumulates.

Multiply-accumulates (MACs) are counted in the traced program, over all its
convolutions and dense products, and so include those of user-defined modules.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from cnn_jax.kernels import plain
from cnn_jax.models import layout

# Scope names with this prefix record in the trace which layer an operation belongs to.
_MARK = "layer:"


class Layer(NamedTuple):
    """A module without submodules that has parameters or computes products.

    ``output`` is the shape for one image, () for an output that is not one array.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int


class Summary(NamedTuple):
    """A network's layers in order of computation, and totals for one image."""

    layers: tuple[Layer, ...]
    input: tuple[int, ...]
    weight_layers: int
    parameters: int
    macs: int


def summarize(module: nn.Module, image: tuple[int, int, int]) -> Summary:
    """Trace a network on one image in evaluation mode, without computing anything.

    Weight layers are counted as in the papers: layers with trainable weights, except
    normalisation and shortcut projections.

    Args:
      module: a network, called with (images, train).
      image: height, width, channels.

    Returns:
      Its `Summary`; parameters are trainable scalars, MACs are for one image.

    Raises:
      ValueError: the network rejects the image.
    """
    module = layout.unrolled(module)
    x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(lambda key, x: module.init(key, x, train=False), key, x)
    seen: dict[str, tuple[str, tuple[int, ...]]] = {}
    parents: set[str] = set()

    def mark(next_method, args, kwargs, context):
        path = context.module.path
        # A module applied unbound inside another counts as part of the other.
        if context.method_name != "__call__" or (not path and seen):
            return next_method(*args, **kwargs)
        name = "/".join(path)
        parents.update("/".join(path[:end]) for end in range(len(path)))
        kind = type(context.module).__name__
        seen[name] = (kind, ())
        with jax.named_scope(_MARK + name):
            output = next_method(*args, **kwargs)
        seen[name] = (kind, getattr(output, "shape", ())[1:])
        return output

    def forward(variables, x):
        # The fast CPU forms compute some convolutions as larger, zero-padded products.
        with nn.intercept_methods(mark), plain.definitions():
            return module.apply(variables, x, train=False)

    program = jax.make_jaxpr(forward)(variables, x).jaxpr
    macs: dict[str, int] = {}
    for scopes, count in multiply_accumulates(program):
        name = scopes.rpartition(_MARK)[2].partition("|")[0] if scopes else ""
        macs[name] = macs.get(name, 0) + count
    params = variables.get("params", {})
    layers = []
    for name, (kind, output) in seen.items():
        size = 0 if name in parents else _size(_at(params, name))
        if size or macs.get(name):
            layers.append(Layer(name, kind, output, size, macs.get(name, 0)))
    weights = [
        layer
        for layer in layers
        if layer.parameters
        and "scale" not in _at(params, layer.name)
        and "shortcut" not in layer.name
    ]
    return Summary(
        layers=tuple(layers),
        input=image,
        weight_layers=len(weights),
        parameters=_size(params),
        macs=sum(macs.values()),
    )


def multiply_accumulates(
    program: core.Jaxpr, scope: str = "", times: int = 1
) -> Iterator[tuple[str, int]]:
    """MACs of each convolution and dense product of a program.

    Nested programs (jit, custom derivatives, ...) count once per call, the body of a
    scan once per iteration. Of a conditional, only the most expensive branch counts.

    Args:
      program: a jaxpr, as returned by `jax.make_jaxpr`.
      scope: names of the enclosing scopes.
      times: how often the program runs.

    Yields:
      Pairs of an operation's scopes, joined by '|', and its MACs.

    Raises:
      NotImplementedError: a while loop computes products, an unknown number of times.
    """
    equation: Any  # jax does not annotate its fields
    for equation in program.eqns:
        stack = "|".join(
            entry.name
            for entry in equation.source_info.name_stack.stack
            if hasattr(entry, "name")
        )
        place = "|".join(part for part in (scope, stack) if part)
        name = equation.primitive.name
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            maps = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            output = equation.outvars[0].aval.size
            yield place, times * output * math.prod(kernel) // maps
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            inner = math.prod(shape[axis] for axis in contracted)
            yield place, times * equation.outvars[0].aval.size * inner
        elif name == "cond":
            branches = [
                list(multiply_accumulates(branch.jaxpr, place, times))
                for branch in equation.params["branches"]
            ]
            yield from max(branches, key=lambda found: sum(n for _, n in found))
        else:
            runs = times * equation.params["length"] if name == "scan" else times
            for inner in _programs(equation.params):
                found = list(multiply_accumulates(inner, place, runs))
                if found and name == "while":
                    raise NotImplementedError(
                        "cannot count the MACs of a while loop, whose number of "
                        "iterations is unknown"
                    )
                yield from found


def _programs(parameters: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The jaxprs among an operation's parameters, without its derivatives."""
    for value in parameters.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _at(tree: Any, name: str) -> Any:
    """The subtree at a path such as 'stage1_block1/conv1'."""
    for part in name.split("/") if name else ():
        tree = tree.get(part, {})
    return tree


def _size(tree: Any) -> int:
    """Number of scalars in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
