"""Acceptors accept exactly the strings that their docstrings state."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.graphs import acceptors


def accepts(acceptor, string):
    """Number of ways in which ``string`` is accepted."""
    ways = np.exp(np.asarray(acceptor.initial))
    source, label = np.asarray(acceptor.source), np.asarray(acceptor.label)
    present = np.exp(np.asarray(acceptor.score))
    for read in string:
        ways = (ways[source] * present * (label == read)).sum(1)
    return int((ways * np.exp(np.asarray(acceptor.final))).sum())


def strings(labels, longest):
    """All strings of up to ``longest`` labels."""
    for length in range(longest + 1):
        yield from itertools.product(range(labels), repeat=length)


def collapsed(string, blank):
    """Repeats merged, then blanks removed."""
    merged = [label for label, _ in itertools.groupby(string)]
    return tuple(label for label in merged if label != blank)


@pytest.mark.parametrize("spelled", [(), (2,), (1, 1, 0)])
def test_string_acceptor_accepts_one_string(spelled):
    labels = jnp.asarray([*spelled, 2, 2][:4], jnp.int32)
    acceptor = acceptors.string_acceptor(labels, jnp.asarray(len(spelled)))
    for string in strings(3, 4):
        assert accepts(acceptor, string) == (string == spelled)


@pytest.mark.parametrize("spelled", [(), (1,), (0, 1), (1, 1), (1, 0, 0)])
def test_alignment_acceptor_accepts_each_stretched_string_once(spelled):
    labels = jnp.asarray([*spelled, 0, 0, 0][:3], jnp.int32)
    acceptor = acceptors.alignment_acceptor(labels, jnp.asarray(len(spelled)), 2)
    for string in strings(3, 6):
        assert accepts(acceptor, string) == (collapsed(string, 2) == spelled)
