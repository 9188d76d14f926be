"""Differentiable scores of all paths of a graph and of its best path.

The forward and Viterbi algorithms (LeCun et al. 1998, sections IV to VI). A pass costs
time linear in the arcs, and its custom derivative is one more pass.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax.graphs.graph import Graph, Path

Scalar = Float[Array, ""]


def forward(graph: Graph) -> Scalar:
    """Log of the sum over all paths of exp(score of the path).

    The negative of the paper's forward penalty (section VI-C). Its gradient with
    respect to an arc's score is the posterior probability of that arc. Supports
    reverse mode only.

    Args:
      graph: an acyclic graph.

    Returns:
      The score; -inf, with gradient 0, where the graph has no path.
    """
    return _total("sum", graph.width, *_arrays(graph))


def best(graph: Graph) -> Scalar:
    """Score of the best path; the gradient is 1 on its arcs and 0 on all others.

    The paper's Viterbi penalty (section VI-A); among equal paths the first counts.

    Args:
      graph: an acyclic graph.

    Returns:
      The score; -inf, with gradient 0, where the graph has no path.
    """
    return _total("max", graph.width, *_arrays(graph))


def viterbi(graph: Graph) -> Path:
    """The best path itself.

    Args:
      graph: an acyclic graph.

    Returns:
      The path, of at most nodes / width arcs. Its score is not differentiable
      (see `best`).
    """
    source, score, initial, final = jax.lax.stop_gradient(_arrays(graph))
    reached = _reach("max", graph.width, source, score, initial)
    arcs = source.shape[1]
    choice = _entries(source, score, initial, reached).argmax(1)
    ending = final + reached
    total = ending.max()

    def step(node, _):
        slot = choice[node]
        begins = slot == arcs
        slot = jnp.minimum(slot, arcs - 1)
        row = jnp.stack([source[node, slot], node, graph.label[node, slot]])
        row = jnp.where(begins, -1, row)
        return jnp.where(begins, node, source[node, slot]), row

    steps = source.shape[0] // graph.width
    _, rows = jax.lax.scan(step, ending.argmax(), length=steps)
    rows = jnp.where(jnp.isneginf(total), -1, rows)
    length = (rows[:, 1] >= 0).sum()
    # The backtrace runs from end to start; the first arc belongs at index 0.
    rows = jnp.roll(rows[::-1], length - steps, axis=0)
    return Path(total, length, rows[:, 0], rows[:, 1], rows[:, 2])


def _arrays(graph: Graph) -> tuple[Array, Array, Array, Array]:
    """The arrays that the recursions use."""
    return graph.source, graph.score, graph.initial, graph.final


def _reduce(kind: str, values: Array) -> Array:
    """Max or log-sum-exp over the last axis; -inf if all values are."""
    top = values.max(-1)
    if kind == "max":
        return top
    base = jnp.where(jnp.isneginf(top), 0.0, top)
    return base + jnp.log(jnp.exp(values - base[..., None]).sum(-1))


def _shares(kind: str, values: Array) -> Array:
    """The derivative of `_reduce`: 0 where all values are -inf."""
    top = values.max(-1, keepdims=True)
    none = jnp.isneginf(top)
    if kind == "max":
        taken = jax.nn.one_hot(values.argmax(-1), values.shape[-1])
        return jnp.where(none, 0.0, taken)
    # Divide by the sum, not by exp(total): on a long line the total is large, and its
    # rounding error would leak mass at each node.
    parts = jnp.exp(values - jnp.where(none, 0.0, top))
    return parts / jnp.where(none, 1.0, parts.sum(-1, keepdims=True))


def _entries(source: Array, score: Array, initial: Array, reached: Array) -> Array:
    """Scores of reaching each node: through each arc, or as the start (last column)."""
    return jnp.concatenate([score + reached[source], initial[:, None]], axis=1)


def _reach(kind: str, width: int, source: Array, score: Array, initial: Array) -> Array:
    """Score of all paths (or of the best one) from the start to each node."""
    nodes, arcs = source.shape

    def step(reached, run):
        index, source, score, initial = run
        value = _reduce(kind, _entries(source, score, initial, reached))
        return jax.lax.dynamic_update_slice(reached, value, (index,)), None

    runs = (
        jnp.arange(0, nodes, width),
        source.reshape(-1, width, arcs),
        score.reshape(-1, width, arcs),
        initial.reshape(-1, width),
    )
    return jax.lax.scan(step, jnp.full_like(initial, -jnp.inf), runs)[0]


# Autodiff of the recursion would store every intermediate state, memory quadratic in
# the nodes. The custom derivative is one more pass, against the direction of the arcs.
@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _total(
    kind: str, width: int, source: Array, score: Array, initial: Array, final: Array
) -> Array:
    """Score of all paths (or of the best one) from the start to the end."""
    return _reduce(kind, final + _reach(kind, width, source, score, initial))


def _total_fwd(kind, width, source, score, initial, final):
    reached = _reach(kind, width, source, score, initial)
    residuals = (source, score, initial, final, reached)
    return _reduce(kind, final + reached), residuals


def _total_bwd(kind, width, residuals, cotangent):
    source, score, initial, final, reached = residuals
    nodes, arcs = source.shape
    ending = cotangent * _shares(kind, final + reached)
    ways = _shares(kind, _entries(source, score, initial, reached))

    def step(mass, run):
        index, source, ways = run
        own = jax.lax.dynamic_slice(mass, (index,), (width,))
        return mass.at[source].add(own[:, None] * ways), None

    runs = (
        jnp.arange(0, nodes, width),
        source.reshape(-1, width, arcs),
        ways[:, :-1].reshape(-1, width, arcs),
    )
    mass, _ = jax.lax.scan(step, ending, runs, reverse=True)
    flow = mass[:, None] * ways
    return None, flow[:, :-1], flow[:, -1], ending


_total.defvjp(_total_fwd, _total_bwd)
