"""Weighted acyclic graphs as padded arrays, and their composition.

The graphs of a graph transformer network (LeCun, Bottou, Bengio and Haffner
1998, sections IV to VI). The arrays have static shape and hold one graph; `jax.vmap`
makes batches. A node lists the arcs that *enter* it, so that one pass over the nodes
in order visits each arc once, at a cost linear in the number of arcs.

Scores add along a path, and higher is better: a score is the negative of the paper's
penalty. A score of -inf marks an absent arc. All arithmetic is float32.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

# An array, or what JAX stores in its place (axes, gradients of integers).
Leaf = Any


class Graph(struct.PyTreeNode):
    """Nodes in topological order, each with the arcs that enter it.

    Attributes:
      source: node where an arc begins, (nodes, arcs) integers; any valid node for
        an absent arc.
      label: label of an arc, (nodes, arcs) integers.
      score: score of an arc, (nodes, arcs); -inf for an absent arc.
      initial: score of beginning a path at a node, (nodes,); -inf for never.
      final: score of ending a path at a node, (nodes,); -inf for never.
      width: size of consecutive groups of nodes without arcs among them; a group
        is computed at once.
      labels: if positive, the arcs of a node come in groups with the labels 0, 1,
        ..., ``labels`` - 1 in this order, so that `compose` finds the arcs of a label
        by index; 0 for any order.
      blank: label that separates symbols, where a symbol may span several arcs; -1
        where each arc reads one symbol.
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
    """Build a graph from a list of arcs, on the host.

    Args:
      arcs: (source, target, label, score) of each arc; parallel arcs are allowed.
      nodes: number of nodes, in topological order.
      initial: nodes where a path may begin.
      final: nodes where a path may end; -1 is the last one.
      cyclic: allow backward arcs and loops, for a graph used only as the second
        argument of `compose`.

    Returns:
      The graph, padded to the largest number of arcs that enter a node.

    Raises:
      ValueError: no nodes, a node out of range, or an arc to a lower or equal node.
    """
    if nodes < 1:
        raise ValueError(f"a graph needs at least 1 node, got {nodes}")
    entering: list[list[tuple[int, int, float]]] = [[] for _ in range(nodes)]
    for source, target, label, score in arcs:
        if not (0 <= source < nodes and 0 <= target < nodes):
            raise ValueError(f"arc {source} -> {target} is outside 0..{nodes - 1}")
        if source >= target and not cyclic:
            raise ValueError(
                f"arc {source} -> {target} must lead to a higher node; number the "
                "nodes in topological order"
            )
        entering[target].append((source, label, score))
    for node in (*initial, *final):
        if not -nodes <= node < nodes:
            raise ValueError(f"node {node} is not in 0..{nodes - 1}")
    shape = (nodes, max(1, *map(len, entering)))
    sources, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    scores = np.full(shape, -np.inf, np.float32)
    for target, rows in enumerate(entering):
        for slot, row in enumerate(rows):
            sources[target, slot], labels[target, slot], scores[target, slot] = row
    ends = np.full((2, nodes), -np.inf, np.float32)
    ends[0, list(initial)] = 0.0
    ends[1, list(final)] = 0.0
    return Graph(
        source=jnp.asarray(sources),
        label=jnp.asarray(labels),
        score=jnp.asarray(scores),
        initial=jnp.asarray(ends[0]),
        final=jnp.asarray(ends[1]),
    )


def compose(graph: Graph, acceptor: Graph) -> Graph:
    """The paths of ``graph`` whose labels ``acceptor`` accepts.

    A node of the result is a pair (node, state). An arc is a pair of arcs with equal
    labels, whose scores add (section VIII-B).

    Args:
      graph: an acyclic graph.
      acceptor: the constraint; it may have loops, since each of its arcs
        consumes an arc of ``graph``.

    Returns:
      An acyclic graph of nodes x states nodes; node ``n`` in state ``s`` has index
      ``n * states + s``.
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
