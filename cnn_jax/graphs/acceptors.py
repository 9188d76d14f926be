"""Constraint graphs that accept one string, or its alignments.

`cnn_jax.graphs.compose` intersects them with a recognition graph (LeCun et al. 1998,
sections VI to VIII).
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from cnn_jax.graphs.graph import Graph


def string_acceptor(labels: Int[Array, " most"], length: Int[Array, ""]) -> Graph:
    """Accepts one string: the first ``length`` of ``labels``, each read once.

    The constraint graph of section VI-A. State s follows s labels.
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
    """Accepts all alignments of a string, with repeated labels and blanks.

    The alignment of a space displacement network (section VII-A). A label may last
    several positions and ``blank`` ("none of the above") any number of them. Equal
    adjacent labels require a blank between them. This is the topology of
    connectionist temporal classification (Graves et al. 2006).
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
        # A path starts before the first position and may end with or without a
        # trailing blank.
        initial=jnp.where(states == 0, 0.0, -jnp.inf),
        final=jnp.where(
            (states == 2 * length) | (states == 2 * length - 1), 0.0, -jnp.inf
        ),
    )
