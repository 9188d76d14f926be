"""Losses and errors for digit strings, computed from recognition graphs.

One field selects among the four criteria of LeCun et al. (1998), section VI. The
network outputs the recognition graph of a line. Composed with an acceptor of the
correct string, it keeps only the correct paths. In penalties (negated scores):

    viterbi                  best correct path                            (A)
    discriminative_viterbi   best correct path minus best path            (B)
    forward                  all correct paths                            (C)
    discriminative_forward   all correct paths minus all paths            (D)

The discriminative criteria are non-negative. The last is the negative log of the
correct paths' share of exp(score). On the graph of a space displacement network, with
the alignment acceptor, it is the loss of connectionist temporal classification
(Graves et al. 2006).
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cnn_jax import graphs
from cnn_jax.graphs import Graph
from cnn_jax.graphs.acceptors import alignment_acceptor, string_acceptor

Criterion = Literal[
    "viterbi", "discriminative_viterbi", "forward", "discriminative_forward"
]


def string_loss(
    outputs: Graph,
    batch: Mapping[str, Any],
    criterion: Criterion = "discriminative_forward",
) -> Float[Array, " batch"]:
    """Loss of each line.

    If no path of the graph spells the line's string (the segmenter missed a cut, the
    string is empty, or a label is outside the classes), the loss is 0 and there is no
    gradient. `spellable` identifies these lines.

    Args:
      outputs: recognition graphs of a batch of lines.
      batch: 'label' holds the strings, int32 (batch, most), and 'length' their
        lengths, int32 (batch,).
      criterion: see the module docstring.

    Returns:
      Loss of each line, float32.
    """
    score = graphs.best if "viterbi" in criterion else graphs.forward

    def loss(graph: Graph, label: Array, length: Array) -> Array:
        right = score(_right_paths(graph, label, length))
        spelled = jnp.isfinite(right)
        penalty = -jnp.where(spelled, right, 0.0)
        if criterion.startswith("discriminative"):
            penalty = penalty + jnp.where(spelled, score(graph), 0.0)
        return penalty

    return jax.vmap(loss)(outputs, batch["label"], batch["length"])


def spellable(outputs: Graph, batch: Mapping[str, Any]) -> Float[Array, " batch"]:
    """1 for each line that some path of its graph spells, else 0."""

    def found(graph: Graph, label: Array, length: Array) -> Array:
        right = graphs.best(_right_paths(graph, label, length))
        return jnp.isfinite(right).astype(jnp.float32)

    return jax.vmap(found)(outputs, batch["label"], batch["length"])


def read(outputs: Graph) -> tuple[Int[Array, "batch most"], Int[Array, " batch"]]:
    """The string of the best path of each graph: the path selector (V-B, VII-A).

    Args:
      outputs: recognition graphs of a batch of lines. If they have a blank, repeated
        labels are merged and blanks dropped.

    Returns:
      Labels, -1 past the end, and lengths.
    """

    def one(graph: Graph) -> tuple[Array, Array]:
        label = graphs.viterbi(graph).label
        if graph.blank < 0:
            keep = label >= 0
        else:
            before = jnp.concatenate([jnp.full((1,), -1), label[:-1]])
            keep = (label >= 0) & (label != graph.blank) & (label != before)
        place = jnp.where(keep, jnp.cumsum(keep) - 1, label.shape[0])
        string = jnp.full_like(label, -1).at[place].set(label, mode="drop")
        return string, keep.sum()

    return jax.vmap(one)(outputs)


def string_errors(outputs: Graph, batch: Mapping[str, Any]) -> Float[Array, " batch"]:
    """1 for each line whose reading differs from its label, else 0."""
    label, length = read(outputs)
    most = max(label.shape[1], batch["label"].shape[1])

    def fill(strings, lengths):
        strings = jnp.pad(strings, ((0, 0), (0, most - strings.shape[1])))
        return jnp.where(jnp.arange(most)[None] < lengths[:, None], strings, -1)

    wanted = fill(batch["label"], batch["length"])
    return (fill(label, length) != wanted).any(1).astype(jnp.float32)


def digit_edits(outputs: Graph, batch: Mapping[str, Any]) -> Int[Array, " batch"]:
    """Edit distance between the reading and the label of each line.

    The digit error rate is the sum of the distances over the sum of the lengths.
    """
    label, length = read(outputs)
    return jax.vmap(edit_distance)(label, length, batch["label"], batch["length"])


def edit_distance(
    one: Int[Array, " most"],
    one_length: Int[Array, ""],
    other: Int[Array, " longest"],
    other_length: Int[Array, ""],
) -> Int[Array, ""]:
    """Minimum number of insertions, deletions and replacements (Levenshtein)."""
    index = jnp.arange(other.shape[0] + 1)

    def step(row: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        symbol, place = at
        replaced = row[:-1] + (other != symbol)
        ways = jnp.minimum(row[1:] + 1, replaced)
        ways = jnp.concatenate([row[:1] + 1, ways])
        # An insertion costs 1 per column, regardless of the column it starts in.
        inserted = jax.lax.cummin(ways - index) + index
        return jnp.where(place < one_length, inserted, row), None

    places = jnp.arange(one.shape[0])
    row, _ = jax.lax.scan(step, index, (one, places))
    return row[other_length]


# The train step uses this to count errors of this loss's outputs.
string_loss.errors = string_errors  # type: ignore[attr-defined]  # see `Program.errors`


def _right_paths(graph: Graph, label: Array, length: Array) -> Graph:
    """The subgraph of the paths that spell the string."""
    if graph.blank < 0:
        acceptor = string_acceptor(label, length)
    else:
        acceptor = alignment_acceptor(label, length, graph.blank)
    return graphs.compose(graph, acceptor)
