"""Graph scores equal an enumeration of all paths.

One file, beyond 350 lines, because all tests share the enumeration and its graphs.
"""

import itertools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import graphs
from tests.tiers import fast

NODES, ARCS, LABELS = 6, 10, 3
quick = hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
scores = st.floats(-5, 5, width=32).map(lambda score: round(score, 3))


@st.composite
def arc_lists(draw, nodes=NODES, most=ARCS):
    """Arcs of a random acyclic graph, including parallel and repeated ones."""
    pairs = list(itertools.combinations(range(nodes), 2))
    arc = st.tuples(st.sampled_from(pairs), st.integers(0, LABELS - 1), scores)
    arcs = draw(st.lists(arc, min_size=1, max_size=most))
    return [(*pair, label, score) for pair, label, score in arcs]


def padded(arcs, nodes=NODES, most=ARCS):
    """`graphs.from_arcs` with a fixed shape for any arcs (one compilation)."""
    graph = graphs.from_arcs(arcs, nodes)
    slack = ((0, 0), (0, most - graph.source.shape[1]))
    return graph.replace(
        source=jnp.pad(graph.source, slack),
        label=jnp.pad(graph.label, slack),
        score=jnp.pad(graph.score, slack, constant_values=-jnp.inf),
    )


def paths(graph):
    """Every path, as a list of (target, slot), by depth-first search."""
    source, score = np.asarray(graph.source), np.asarray(graph.score)
    initial, final = np.asarray(graph.initial), np.asarray(graph.final)
    leaving = [[] for _ in initial]
    for target, slot in zip(*np.nonzero(score > -np.inf), strict=True):
        leaving[source[target, slot]].append((int(target), int(slot)))

    def walk(node, taken):
        if final[node] > -np.inf:
            yield taken
        for arc in leaving[node]:
            yield from walk(arc[0], [*taken, arc])

    for node in np.nonzero(initial > -np.inf)[0]:
        for taken in walk(int(node), []):
            yield int(node), taken


def path_score(graph, path):
    """Sum of a path in float64, including its ends."""
    begin, arcs = path
    end = arcs[-1][0] if arcs else begin
    ends = float(graph.initial[begin]) + float(graph.final[end])
    return ends + sum(float(graph.score[arc]) for arc in arcs)


def log_sum(values):
    """Log-sum-exp in float64; -inf for no values."""
    if not values:
        return -math.inf
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


forward = jax.jit(jax.value_and_grad(lambda s, g: graphs.forward(g.replace(score=s))))
best = jax.jit(jax.value_and_grad(lambda s, g: graphs.best(g.replace(score=s))))
viterbi = jax.jit(graphs.viterbi)


@quick
@hypothesis.given(arc_lists())
def test_forward_score_and_posteriors_equal_enumeration(arcs):
    graph = padded(arcs)
    found = list(paths(graph))
    total = log_sum([path_score(graph, path) for path in found])
    posterior = np.zeros(graph.score.shape)
    for path in found:
        for arc in path[1]:
            posterior[arc] += math.exp(path_score(graph, path) - total)
    value, gradient = forward(graph.score, graph)
    np.testing.assert_allclose(value, total, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, posterior, atol=1e-5)


@quick
@hypothesis.given(arc_lists())
def test_best_score_path_and_gradient_equal_enumeration(arcs):
    graph = padded(arcs)
    found = {tuple(path[1]): path_score(graph, path) for path in paths(graph)}
    value, gradient = best(graph.score, graph)
    path = jax.device_get(viterbi(graph))
    if not found:
        assert value == path.score == -np.inf
        assert path.length == 0
        assert not gradient.any()
        assert (path.label == -1).all()
        return
    wanted = max(found.values())
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(path.score, wanted, rtol=1e-5, atol=1e-5)
    taken = tuple(
        (int(target), int(slot))
        for target, slot in zip(*np.nonzero(np.asarray(gradient)), strict=True)
    )
    np.testing.assert_array_equal(gradient[np.nonzero(gradient)], 1.0)
    np.testing.assert_allclose(found[taken], wanted, rtol=1e-5, atol=1e-5)
    assert path.length == len(taken)
    for index, (target, slot) in enumerate(taken):
        assert path.target[index] == target
        assert path.source[index] == graph.source[target, slot]
        assert path.label[index] == graph.label[target, slot]
    assert (path.target[len(taken) :] == -1).all()


@quick
@hypothesis.given(arc_lists())
def test_gradients_equal_finite_differences(arcs):
    graph = padded(arcs)
    if not any(True for _ in paths(graph)):
        return
    _, gradient = forward(graph.score, graph)
    present = np.asarray(graph.score) > -np.inf
    direction = np.where(
        present, np.cos(np.arange(present.size)).reshape(present.shape), 0
    ).astype(np.float32)
    step = 1e-2
    high, _ = forward(graph.score + step * direction, graph)
    low, _ = forward(graph.score - step * direction, graph)
    slope = (high - low) / (2 * step)
    np.testing.assert_allclose(slope, (gradient * direction).sum(), atol=5e-3)


def reading(graph, path):
    """The labels of a path."""
    return tuple(int(graph.label[arc]) for arc in path[1])


def acceptor_readings(acceptor, longest):
    """Score of each (string, path) that a small acceptor accepts."""
    found = []
    for length in range(longest + 1):
        states, rules = acceptor.source.shape
        arcs = list(itertools.product(range(states), range(rules)))
        for way in itertools.product(arcs, repeat=length):
            begins = range(states) if not way else [int(acceptor.source[way[0]])]
            joined = all(
                int(acceptor.source[after]) == before[0]
                for before, after in itertools.pairwise(way)
            )
            for begin in begins if joined else ():
                score = path_score(acceptor, (begin, list(way)))
                if score > -math.inf:
                    found.append((reading(acceptor, (0, way)), score))
    return found


@pytest.mark.parametrize("grouped", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_composition_equals_the_paths_that_both_accept(grouped):
    rng = np.random.default_rng(0)
    if grouped:  # three labels per arc, in order, as from a recogniser
        arcs = [
            (source, target, label, rng.normal())
            for source, target in [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
            for label in range(LABELS)
        ]
    else:
        arcs = [
            (0, 1, 0, 0.5), (0, 1, 2, -1.0), (0, 2, 1, 0.2), (1, 2, 2, 0.7),
            (1, 3, 0, 0.1), (2, 3, 0, -0.3), (2, 3, 2, 1.1), (2, 3, 2, 0.4),
        ]  # fmt: skip
    graph = graphs.from_arcs(arcs, 4)
    if grouped:
        graph = graph.replace(labels=LABELS)
    rules = [(0, 0, 0, 0.3), (0, 1, 2, -0.2), (1, 0, 1, 0.9), (1, 1, 2, 0.0)]
    acceptor = graphs.from_arcs([*rules, (0, 1, 7, 1.0)], 2, cyclic=True)
    accepted = acceptor_readings(acceptor, 3)  # takes a fifth of a second
    wanted = [
        (own, path_score(graph, path) + score)
        for path in paths(graph)
        for own in [reading(graph, path)]
        for string, score in accepted
        if own == string
    ]
    assert len(wanted) > 2
    both = jax.jit(graphs.compose)(graph, acceptor)
    found = [(reading(both, path), path_score(both, path)) for path in paths(both)]
    assert sorted(string for string, _ in found) == sorted(s for s, _ in wanted)
    np.testing.assert_allclose(
        sorted(score for _, score in found), sorted(s for _, s in wanted), rtol=1e-5
    )
    np.testing.assert_allclose(
        jax.jit(graphs.forward)(both), log_sum([s for _, s in wanted]), rtol=1e-5
    )
    path = jax.device_get(viterbi(both))
    top_string, top = max(wanted, key=lambda pair: pair[1])
    np.testing.assert_allclose(path.score, top, rtol=1e-5)
    assert tuple(path.label[: path.length].tolist()) == top_string


def ladder(segments, rng, fan=4, labels=LABELS):
    """A segmentation graph: arcs of every label enter node j from j-1 ... j-fan."""
    nodes = np.arange(segments + 1)
    source = np.repeat(nodes[:, None] - 1 - np.arange(fan)[None], labels, axis=1)
    score = rng.normal(0, 10, source.shape).astype(np.float32)
    return graphs.Graph(
        source=jnp.asarray(np.maximum(source, 0)),
        label=jnp.asarray(np.tile(np.arange(labels), (segments + 1, fan))),
        score=jnp.asarray(np.where(source >= 0, score, -np.inf)),
        initial=jnp.where(nodes == 0, 0.0, -jnp.inf),
        final=jnp.where(nodes == segments, 0.0, -jnp.inf),
        labels=labels,
    )


def exact(graph):
    """Forward score in float64, node by node."""
    source = np.asarray(graph.source)
    score = np.asarray(graph.score, np.float64)
    reached = np.asarray(graph.initial, np.float64).copy()
    for node in range(len(reached)):
        ways = score[node] + reached[source[node]]
        reached[node] = np.logaddexp.reduce([reached[node], *ways])
    return np.logaddexp.reduce(reached + np.asarray(graph.final, np.float64))


@pytest.mark.parametrize("segments", fast([50], [50, 200]))
def test_long_lines_are_stable_in_float32(segments):
    graph = ladder(segments, np.random.default_rng(segments))
    value, gradient = forward(graph.score, graph)
    np.testing.assert_allclose(value, exact(graph), rtol=2e-6)
    assert np.isfinite(gradient).all()
    # Each path covers each segment once: arcs that span it have mass 1 together.
    source = np.asarray(graph.source)
    target = np.arange(segments + 1)[:, None]
    for cut in range(segments):
        spans = (source <= cut) & (target > cut)
        np.testing.assert_allclose(gradient[spans].sum(), 1.0, atol=1e-5)


def test_large_scores_neither_overflow_nor_vanish():
    graph = ladder(50, np.random.default_rng(0))
    for offset in (-3e4, 3e4):
        shifted = graph.replace(score=graph.score + offset)
        value, gradient = forward(shifted.score, shifted)
        np.testing.assert_allclose(value, exact(shifted), rtol=1e-5)
        assert np.isfinite(gradient).all()


def test_a_graph_without_paths_scores_minus_infinity_with_zero_gradient():
    graph = graphs.from_arcs([(0, 1, 0, 1.0)], 3)
    for function in (graphs.forward, graphs.best):
        value, gradient = jax.value_and_grad(function, allow_int=True)(graph)
        assert value == -np.inf
        assert not gradient.score.any()
        assert not gradient.initial.any()
        assert not gradient.final.any()


def test_a_single_node_is_the_empty_path():
    graph = graphs.from_arcs([], 1)
    assert graphs.forward(graph) == 0.0
    path = graphs.viterbi(graph)
    assert (path.score, path.length) == (0.0, 0)


@pytest.mark.slow
def test_vmap_and_pmap_equal_one_by_one():
    rng = np.random.default_rng(1)
    count = jax.local_device_count()
    single = [ladder(7, rng) for _ in range(2 * count)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *single)
    wanted = np.array([forward(graph.score, graph)[0] for graph in single])
    np.testing.assert_allclose(jax.vmap(graphs.forward)(batch), wanted, rtol=1e-6)
    split = jax.tree.map(lambda leaf: leaf.reshape(count, 2, *leaf.shape[1:]), batch)
    mapped = jax.pmap(jax.vmap(graphs.forward))(split)
    np.testing.assert_allclose(mapped.reshape(-1), wanted, rtol=1e-6)
    paths_of_batch = jax.vmap(graphs.viterbi)(batch)
    for index, graph in enumerate(single):
        path = viterbi(graph)
        np.testing.assert_array_equal(paths_of_batch.label[index], path.label)


def cost(segments):
    """Arithmetic steps and scratch bytes of a gradient of the forward score."""
    graph = ladder(segments, np.random.default_rng(0))
    gradient = jax.jit(jax.grad(lambda s: graphs.forward(graph.replace(score=s))))
    bytes_ = gradient.lower(graph.score).compile().memory_analysis()
    steps = sum(
        equation.params["length"]
        * sum(
            math.prod(variable.aval.shape)
            for inner in equation.params["jaxpr"].jaxpr.eqns
            for variable in inner.outvars
            # The carried table is updated in place.
            if inner.primitive.name not in ("dynamic_update_slice", "scatter-add")
        )
        for equation in jax.make_jaxpr(gradient)(graph.score)
        .jaxpr.eqns[0]
        .params["jaxpr"]
        .jaxpr.eqns
        if equation.primitive.name == "scan"
    )
    assert steps > 0
    return steps, bytes_.temp_size_in_bytes


def test_cost_is_linear_in_arcs():
    (steps, scratch), (more_steps, more_scratch) = cost(200), cost(800)
    assert more_steps < 4.2 * steps
    assert more_scratch < 4.5 * scratch


@pytest.mark.parametrize(
    ("arcs", "nodes", "message"),
    [
        ([(2, 1, 0, 0.0)], 3, "arc 2 -> 1 must lead to a higher node"),
        ([(1, 1, 0, 0.0)], 3, "arc 1 -> 1 must lead to a higher node"),
        ([(0, 3, 0, 0.0)], 3, "arc 0 -> 3 is outside 0..2"),
        ([], 0, "at least 1 node, got 0"),
    ],
)
def test_wrong_arcs_are_refused(arcs, nodes, message):
    with pytest.raises(ValueError, match=message):
        graphs.from_arcs(arcs, nodes)


def test_an_end_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"node 5 is not in 0\.\.2"):
        graphs.from_arcs([], 3, final=(5,))


def test_a_composed_path_ends_where_both_of_its_paths_may():
    """Neither at the last node nor in the last state."""
    ends = np.array([-np.inf, 0.5, -np.inf], np.float32)
    arcs = [(0, 1, 0, 1.0), (1, 2, 1, 2.0)]
    graph = graphs.from_arcs(arcs, 3).replace(final=jnp.asarray(ends))
    acceptor = graphs.from_arcs([(0, 1, 0, 4.0)], 4).replace(
        final=jnp.asarray([*ends, -np.inf])
    )
    composed = graphs.compose(graph, acceptor)
    wanted = np.add.outer(ends, np.append(ends, -np.inf))
    np.testing.assert_array_equal(np.asarray(composed.final).reshape(3, 4), wanted)
    assert float(jax.jit(graphs.forward)(composed)) == pytest.approx(6.0)
