"""Graphs that say what may be read: one string, a stretched one, a grammar.

The constraint graphs that `cnn_jax.graphs.compose` intersects with the graph of
what a recogniser saw (LeCun et al. 1998, sections VI to VIII).
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from cnn_jax.graphs.graph import Graph


def string_acceptor(labels: Int[Array, " most"], length: Int[Array, ""]) -> Graph:
    """Accepts one string, the first ``length`` of ``labels``, each label once.

    The constraint graph of section VI-A. State s has read s labels.
    """
    most = labels.shape[0]
    states = jnp.arange(most + 1)
    return Graph(
        source=jnp.maximum(states - 1, 0)[:, None],
        label=jnp.concatenate([jnp.full((1,), -1, labels.dtype), labels])[:, None],
        score=jnp.where(states > 0, 0.0, -jnp.inf)[:, None],
        initial=jnp.where(states == 0, 0.0, -jnp.inf),
        final=jnp.where(states == length, 0.0, -jnp.inf),
    )


def alignment_acceptor(
    labels: Int[Array, " most"], length: Int[Array, ""], blank: int
) -> Graph:
    """Accepts the string stretched: labels repeat, blanks stand between them.

    The alignment of a space displacement network (section VII-A): a
    label may last several positions, ``blank`` ("none of the above") any number,
    and equal neighbours must have a blank between them. This is the topology
    of connectionist temporal classification (Graves et al. 2006).
    """
    most = labels.shape[0]
    states = jnp.arange(2 * most + 1)
    spelled = jnp.full(2 * most + 1, blank, labels.dtype).at[1::2].set(labels)
    two_back = jnp.roll(spelled, 2)
    skip = (states > 1) & (spelled != blank) & (spelled != two_back)
    allowed = jnp.stack([states >= 0, states > 0, skip], axis=1)
    source = states[:, None] - jnp.arange(3)[None, :]
    return Graph(
        source=jnp.maximum(source, 0),
        label=jnp.broadcast_to(spelled[:, None], source.shape),
        score=jnp.where(allowed, 0.0, -jnp.inf),
        # Before the first position nothing is read; the string is read with or
        # without a blank after it.
        initial=jnp.where(states == 0, 0.0, -jnp.inf),
        final=jnp.where(
            (states == 2 * length) | (states == 2 * length - 1), 0.0, -jnp.inf
        ),
    )


def length_acceptor(length: int, labels: int) -> Graph:
    """Accepts every string of ``length`` labels: a field whose size is known."""
    states = jnp.arange(length + 1)
    shape = (length + 1, labels)
    return Graph(
        source=jnp.broadcast_to(jnp.maximum(states - 1, 0)[:, None], shape),
        label=jnp.broadcast_to(jnp.arange(labels)[None, :], shape),
        score=jnp.where((states > 0)[:, None], jnp.zeros(shape), -jnp.inf),
        initial=jnp.where(states == 0, 0.0, -jnp.inf),
        final=jnp.where(states == length, 0.0, -jnp.inf),
    )
