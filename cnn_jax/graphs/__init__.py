"""Weighted acyclic graphs: forward and Viterbi scores, composition, acceptors."""

from cnn_jax.graphs.acceptors import alignment_acceptor as alignment_acceptor
from cnn_jax.graphs.acceptors import string_acceptor as string_acceptor
from cnn_jax.graphs.graph import Graph as Graph
from cnn_jax.graphs.graph import Path as Path
from cnn_jax.graphs.graph import compose as compose
from cnn_jax.graphs.graph import from_arcs as from_arcs
from cnn_jax.graphs.scores import best as best
from cnn_jax.graphs.scores import forward as forward
from cnn_jax.graphs.scores import viterbi as viterbi
