"""Weighted acyclic graphs: scores of all paths and of the best, differentiable.

The graphs of a graph transformer network (LeCun, Bottou, Bengio and Haffner
1998, sections IV to VI) as padded arrays of static shape, for one graph; `jax.vmap`
makes batches. A node lists the arcs that *enter* it, so that a pass over the
nodes in their order touches each arc once, and the cost is linear in arcs.

Scores add along a path and high is good: a score is the negative of the paper's
penalty, and -inf means that there is no such arc. All arithmetic is float32.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

Scalar = Float[Array, ""]
# An array; in trees of JAX's own making (axes, gradients of integers) other things.
Leaf = Any


class Graph(struct.PyTreeNode):
    """Nodes in topological order, each with the arcs that enter it.

    Attributes:
      source: node where an arc begins, (nodes, arcs) integers; anything in range
        where there is no arc.
      label: what an arc reads, (nodes, arcs) integers.
      score: score of an arc, (nodes, arcs); -inf where there is no arc.
      initial: score of beginning a path at a node, (nodes,); -inf for never.
      final: score of ending a path at a node, (nodes,); -inf for never.
      width: nodes come in runs of this many which no arc joins; a run is
        computed at once.
      labels: the arcs of a node come in runs with the labels 0, 1, ...,
        ``labels`` - 1 in this order (0: in any order). `compose` then picks the
        arcs of a label without a search.
      blank: label that stands between the symbols of what is read, when symbols
        may also be repeated; -1 where each arc reads one symbol.
    """

    source: Leaf
    label: Leaf
    score: Leaf
    initial: Leaf
    final: Leaf
    width: int = struct.field(pytree_node=False, default=1)
    labels: int = struct.field(pytree_node=False, default=0)
    blank: int = struct.field(pytree_node=False, default=-1)


class Path(struct.PyTreeNode):
    """The best path of a graph; entries past ``length`` are -1.

    Attributes:
      score: sum of the path, () float32; -inf where the graph has no path.
      length: number of its arcs.
      source: nodes that its arcs leave, (steps,).
      target: nodes that its arcs enter, (steps,).
      label: labels of its arcs, (steps,).
    """

    score: Leaf
    length: Leaf
    source: Leaf
    target: Leaf
    label: Leaf


def from_arcs(
    arcs: Sequence[tuple[int, int, int, float]],
    nodes: int,
    initial: Sequence[int] = (0,),
    final: Sequence[int] = (-1,),
    cyclic: bool = False,
) -> Graph:
    """A graph from a list of arcs, built on the host.

    Args:
      arcs: (source, target, label, score) of each arc; parallel arcs may be.
      nodes: number of nodes, in topological order.
      initial: nodes where a path may begin.
      final: nodes where a path may end; -1 is the last one.
      cyclic: allow arcs backwards and loops, for a graph which only `compose`
        sees, as its second argument.

    Returns:
      The graph, with as many arcs a node as its busiest node has.

    Raises:
      ValueError: no nodes, a node out of range, or an arc that does not go up.
    """
    if nodes < 1:
        raise ValueError(f"a graph needs at least 1 node, got {nodes}")
    entering: list[list[tuple[int, int, float]]] = [[] for _ in range(nodes)]
    for source, target, label, score in arcs:
        if not (0 <= source < nodes and 0 <= target < nodes):
            raise ValueError(f"arc {source} -> {target}: nodes are 0 to {nodes - 1}")
        if source >= target and not cyclic:
            raise ValueError(
                f"arc {source} -> {target} does not go up; number the nodes so that "
                "every arc enters a higher node"
            )
        entering[target].append((source, label, score))
    for node in (*initial, *final):
        if not -nodes <= node < nodes:
            raise ValueError(f"node {node} is not among 0 to {nodes - 1}")
    shape = (nodes, max(1, *map(len, entering)))
    source, label = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    score = np.full(shape, -np.inf, np.float32)
    for target, rows in enumerate(entering):
        for slot, row in enumerate(rows):
            source[target, slot], label[target, slot], score[target, slot] = row
    ends = np.full((2, nodes), -np.inf, np.float32)
    ends[0, list(initial)] = 0.0
    ends[1, list(final)] = 0.0
    return Graph(*map(jnp.asarray, (source, label, score, ends[0], ends[1])))


def forward(graph: Graph) -> Scalar:
    """Log of the sum over all paths of exp(score of the path).

    The negative of the paper's forward penalty (section VI-C). Its
    gradient on an arc is the posterior probability of that arc. Reverse-mode
    only.

    Args:
      graph: an acyclic graph.

    Returns:
      The score; -inf, with gradient 0, where the graph has no path.
    """
    return _total("sum", graph.width, *_arrays(graph))


def best(graph: Graph, extreme: Literal["max", "min"] = "max") -> Scalar:
    """Score of the best path; the gradient is 1 on its arcs and 0 on all others.

    The paper's Viterbi penalty (section VI-A); of equal paths the first counts.

    Args:
      graph: an acyclic graph.
      extreme: 'max', or 'min' where the scores are penalties.

    Returns:
      The score; -inf, with gradient 0, where the graph has no path.
    """
    if extreme == "max":
        return _total("max", graph.width, *_arrays(graph))
    total = _total("max", graph.width, *_arrays(_negated(graph)))
    return jnp.where(jnp.isneginf(total), total, -total)


def viterbi(graph: Graph, extreme: Literal["max", "min"] = "max") -> Path:
    """The best path itself.

    Args:
      graph: an acyclic graph.
      extreme: 'max', or 'min' where the scores are penalties.

    Returns:
      The path, of at most nodes / width arcs. Its score is not differentiable
      (see `best`).
    """
    shown = _negated(graph) if extreme == "min" else graph
    source, score, initial, final = jax.lax.stop_gradient(_arrays(shown))
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
    # The walk went from the end to the start; the first arc belongs at index 0.
    rows = jnp.roll(rows[::-1], length - steps, axis=0)
    if extreme == "min":
        total = jnp.where(jnp.isneginf(total), total, -total)
    return Path(total, length, rows[:, 0], rows[:, 1], rows[:, 2])


def log_path_count(graph: Graph) -> Scalar:
    """Natural log of the number of paths (-inf for none).

    A log, because a line of 50 digits has more readings than float32 holds.
    """

    def present(scores):
        return jnp.where(jnp.isneginf(scores), -jnp.inf, 0.0)

    return forward(
        graph.replace(
            score=present(graph.score),
            initial=present(graph.initial),
            final=present(graph.final),
        )
    )


def compose(graph: Graph, acceptor: Graph) -> Graph:
    """The paths of ``graph`` whose labels ``acceptor`` accepts.

    A node of the result is a pair (node, state), and an arc is a pair of arcs of
    equal label, with the sum of their scores (section VIII-B).

    Args:
      graph: an acyclic graph.
      acceptor: the constraint; it may have loops, since each of its arcs
        consumes an arc of ``graph``.

    Returns:
      An acyclic graph of nodes x states nodes; node ``n`` in state ``s`` is
      number ``n * states + s``.
    """
    (nodes, arcs), (states, rules) = graph.source.shape, acceptor.source.shape
    # Slot (i, r) of node (n, s): arc slots[s, i, r] of n with arc r of s.
    if graph.labels:
        runs = jnp.arange(0, arcs, graph.labels)
        wanted = acceptor.label[:, None, :]
        known = (wanted >= 0) & (wanted < graph.labels)
        slots = jnp.where(known, wanted, 0) + runs[None, :, None]
        agree = jnp.broadcast_to(known, slots.shape)[None]
    else:
        slots = jnp.broadcast_to(jnp.arange(arcs)[None, :, None], (states, arcs, rules))
        agree = graph.label[:, None, :, None] == acceptor.label[None, :, None, :]
    score = graph.score[:, slots] + acceptor.score[None, :, None, :]
    source = graph.source[:, slots] * states + acceptor.source[None, :, None, :]

    def flat(pairs):
        return pairs.reshape(nodes * states, -1)

    def ends(of_node, of_state):
        return (of_node[:, None] + of_state[None, :]).reshape(-1)

    return Graph(
        source=flat(source),
        label=flat(graph.label[:, slots]),
        score=flat(jnp.where(agree, score, -jnp.inf)),
        initial=ends(graph.initial, acceptor.initial),
        final=ends(graph.final, acceptor.final),
        width=graph.width * states,
        blank=graph.blank,
    )


def _arrays(graph: Graph) -> tuple[Array, Array, Array, Array]:
    """What the recursions read."""
    return graph.source, graph.score, graph.initial, graph.final


def _negated(graph: Graph) -> Graph:
    """All scores with the opposite sign; what is missing stays missing."""

    def negate(scores):
        return jnp.where(jnp.isneginf(scores), scores, -scores)

    return graph.replace(
        score=negate(graph.score),
        initial=negate(graph.initial),
        final=negate(graph.final),
    )


def _reduce(kind: str, values: Array) -> Array:
    """Max or log-sum-exp over the last axis; -inf where all are."""
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
    # Divided by their sum, not by exp(total): on a long line the total is large
    # and its rounding would let mass leak at each node.
    parts = jnp.exp(values - jnp.where(none, 0.0, top))
    return parts / jnp.where(none, 1.0, parts.sum(-1, keepdims=True))


def _entries(source: Array, score: Array, initial: Array, reached: Array) -> Array:
    """Scores of the ways into each node: by its arcs, or as a start (last)."""
    return jnp.concatenate([score + reached[source], initial[:, None]], axis=1)


def _reach(kind: str, width: int, source: Array, score: Array, initial: Array) -> Array:
    """Score of all paths (or the best) from the start to each node."""
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


# Differentiating the recursion itself would keep every intermediate state, nodes
# times nodes of memory; its derivative is one more pass, against the arcs.
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
