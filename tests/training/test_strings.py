"""String losses against enumeration and CTC; errors against plain Python."""

import itertools
import typing

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import graphs, names
from cnn_jax.models.gtn import chain
from cnn_jax.training import strings

CLASSES = 3
quick = hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
CRITERIA = typing.get_args(strings.Criterion)
loss = jax.jit(strings.string_loss, static_argnums=2)
string_errors = jax.jit(strings.string_errors)
digit_edits = jax.jit(strings.digit_edits)
spellable = jax.jit(strings.spellable)
read = jax.jit(strings.read)


def pieces(rng, batch=4):
    """Graphs of four cuts whose pieces span one or two stretches."""
    spans = [(0, 1), (1, 2), (0, 2), (2, 3), (1, 3)]
    made = []
    for _ in range(batch):
        arcs = [
            (source, target, label, float(rng.normal(0, 2)))
            for target in range(4)
            for source, end in sorted(spans, reverse=True)
            if end == target
            for label in range(CLASSES)
        ]
        made.append(graphs.from_arcs(arcs, 4).replace(labels=CLASSES))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made), spans


def labelled(*texts, most=4):
    """A batch of strings, by default of the shape that most tests share."""
    label = np.full((len(texts), most), -1, np.int32)
    for row, text in enumerate(texts):
        label[row, : len(text)] = text
    length = np.array([len(text) for text in texts], np.int32)
    return {"label": jnp.asarray(label), "length": jnp.asarray(length)}


def readings(graph, row, spans):
    """The score of every reading of one line, by enumeration in float64."""
    source, score = np.asarray(graph.source[row]), np.asarray(graph.score[row])
    arcs = {}
    for target, slot in zip(*np.nonzero(score > -np.inf), strict=True):
        key = (
            int(source[target, slot]),
            int(target),
            int(graph.label[row, target, slot]),
        )
        arcs[key] = float(score[target, slot])
    for ways in ([(0, 1), (1, 2), (2, 3)], [(0, 2), (2, 3)], [(0, 1), (1, 3)]):
        assert all(way in spans for way in ways)
        for text in itertools.product(range(CLASSES), repeat=len(ways)):
            total = sum(
                arcs[(*way, label)] for way, label in zip(ways, text, strict=True)
            )
            yield text, total


@pytest.mark.parametrize("criterion", CRITERIA)
def test_each_criterion_equals_enumeration(criterion):
    graph, spans = pieces(np.random.default_rng(0))
    texts = [(0, 1, 2), (2, 2), (1, 0), (1, 1, 1)]
    batch = labelled(*texts)
    found = loss(graph, batch, criterion)
    combine = max if "viterbi" in criterion else np.logaddexp.reduce
    for row, text in enumerate(texts):
        scores = list(readings(graph, row, spans))
        wanted = -combine([score for read, score in scores if read == text])
        if criterion.startswith("discriminative"):
            wanted += combine([score for _, score in scores])
        np.testing.assert_allclose(found[row], wanted, rtol=1e-5, atol=1e-5)


def test_discriminative_loss_is_zero_only_with_all_mass_on_the_right_strings():
    graph, _ = pieces(np.random.default_rng(1))
    batch = labelled(*[(0, 1)] * 4)
    for criterion in ("discriminative_forward", "discriminative_viterbi"):
        assert (loss(graph, batch, criterion) >= -1e-5).all()
    assert (loss(graph, batch, "discriminative_forward") > 1e-3).all()
    sure = graphs.from_arcs([(0, 1, 0, 0.3), (1, 2, 1, -0.2), (0, 2, 2, -np.inf)], 3)
    sure = jax.tree.map(lambda leaf: leaf[None], sure)
    assert abs(loss(sure, labelled((0, 1)), "discriminative_forward")[0]) < 1e-6
    # Two segmentations of the same string share the mass without a loss.
    shared = graphs.from_arcs(
        [(0, 1, 0, 0.3), (1, 3, 1, 0.2), (0, 2, 0, 0.1), (2, 3, 1, 0.4)], 4
    )
    shared = jax.tree.map(lambda leaf: leaf[None], shared)
    assert abs(loss(shared, labelled((0, 1)), "discriminative_forward")[0]) < 1e-6
    assert loss(shared, labelled((0, 1)), "forward")[0] < -0.5


def test_gradient_is_the_difference_of_two_posteriors():
    graph, _ = pieces(np.random.default_rng(2), batch=1)
    batch = labelled((2, 0))

    def line_loss(score):
        return strings.string_loss(graph.replace(score=score), batch)[0]

    gradient = jax.jit(jax.grad(line_loss))(graph.score)
    # Each path crosses a stretch once, both among correct paths and among all.
    source, target = np.asarray(graph.source[0]), np.arange(4)[:, None]
    present = np.asarray(graph.score[0]) > -np.inf
    for cut in range(3):
        across = present & (source <= cut) & (target > cut)
        np.testing.assert_allclose(gradient[0][across].sum(), 0.0, atol=1e-5)
    step, score = 1e-2, np.asarray(graph.score)
    changes = np.zeros((present.sum(), *score.shape), np.float32)
    changes[(range(len(changes)), 0, *np.nonzero(present))] = step
    losses = jax.jit(jax.vmap(line_loss))
    slope = (losses(score + changes) - losses(score - changes)) / (2 * step)
    np.testing.assert_allclose(slope, gradient[0][present], atol=2e-3)


def test_alignment_loss_equals_ctc():
    rng = np.random.default_rng(3)
    scores = jnp.asarray(rng.normal(0, 2, (6, 9, CLASSES + 1)), jnp.float32)
    texts = [(0, 1, 2, 0), (1, 1, 1), (2,), (0, 0, 1, 1), (2, 1), (0, 2, 0)]
    batch = labelled(*texts)
    graph = jax.vmap(chain)(scores)
    padding = jnp.arange(4)[None] >= batch["length"][:, None]

    @jax.jit
    def ctc(scores):
        return optax.ctc_loss(
            scores,
            jnp.zeros(scores.shape[:2]),
            batch["label"],
            padding.astype(jnp.float32),
            blank_id=CLASSES,
        )

    def ours(scores):
        return strings.string_loss(jax.vmap(chain)(scores), batch)

    np.testing.assert_allclose(
        loss(graph, batch, "discriminative_forward"), ctc(scores), rtol=1e-5, atol=1e-5
    )
    gradients = [
        jax.jit(jax.grad(lambda scores, f=f: f(scores).sum()))(scores)
        for f in (ours, ctc)
    ]
    np.testing.assert_allclose(*gradients, rtol=1e-3, atol=1e-4)


def test_what_no_path_spells_has_no_loss_and_no_gradient():
    graph, _ = pieces(np.random.default_rng(4), batch=4)
    # More labels than stretches, an empty string, labels outside the classes.
    batch = labelled((0, 1, 2, 0), (), (3, 0), (-2, 0))
    np.testing.assert_array_equal(spellable(graph, batch), np.zeros(4))
    for criterion in CRITERIA:
        np.testing.assert_array_equal(loss(graph, batch, criterion), np.zeros(4))
    gradient = jax.jit(
        jax.grad(
            lambda score: strings.string_loss(graph.replace(score=score), batch).sum()
        )
    )(graph.score)
    assert not gradient.any()
    np.testing.assert_array_equal(string_errors(graph, batch), np.ones(4))
    fine = labelled((0, 1, 2), (1, 1), (2, 0), (0, 0))
    np.testing.assert_array_equal(spellable(graph, fine), np.ones(4))


def test_nothing_on_a_line_is_read_as_the_empty_string():
    graph = jax.tree.map(lambda leaf: leaf[None], graphs.from_arcs([], 1))
    for criterion in CRITERIA:
        assert loss(graph, labelled(()), criterion)[0] == 0.0
    assert spellable(graph, labelled(()))[0] == 1.0
    assert string_errors(graph, labelled(()))[0] == 0.0
    assert string_errors(graph, labelled((1,)))[0] == 1.0


def test_reading_takes_the_best_path():
    graph, spans = pieces(np.random.default_rng(5))
    label, length = read(graph)
    for row in range(4):
        best, _ = max(readings(graph, row, spans), key=lambda pair: pair[1])
        assert tuple(label[row, : length[row]].tolist()) == best
        assert (label[row, length[row] :] == -1).all()
        batch = labelled(*[best] * 4)
        assert string_errors(graph, batch)[row] == 0.0
        assert digit_edits(graph, batch)[row] == 0
        batch = labelled(*[best[:-1]] * 4)
        assert string_errors(graph, batch)[row] == 1.0
        assert digit_edits(graph, batch)[row] == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [("0011", "01"), ("0303", "00"), ("3333", ""), ("3223", "2"), ("0130", "010")],
)
def test_reading_a_sweep_merges_repeats_and_drops_blanks(path, text):
    scores = jax.nn.one_hot(jnp.asarray([int(symbol) for symbol in path]), 4)
    graph = jax.tree.map(lambda leaf: leaf[None], chain(scores))
    label, length = read(graph)
    assert "".join(map(str, label[0, : length[0]].tolist())) == text


def levenshtein(one, other):
    """Edit distance, by its recursive definition."""
    if not one or not other:
        return len(one) + len(other)
    return min(
        levenshtein(one[1:], other) + 1,
        levenshtein(one, other[1:]) + 1,
        levenshtein(one[1:], other[1:]) + (one[0] != other[0]),
    )


texts = st.lists(st.integers(0, 2), max_size=5)
edit_distance = jax.jit(strings.edit_distance)


@quick
@hypothesis.given(texts, texts)
def test_edit_distance_equals_its_definition(one, other):
    padded = [jnp.asarray([*text, *[1] * 5][:5], jnp.int32) for text in (one, other)]
    lengths = [jnp.asarray(len(text)) for text in (one, other)]
    found = edit_distance(padded[0], lengths[0], padded[1], lengths[1])
    assert found == levenshtein(one, other)


def test_an_unknown_criterion_is_refused():
    with pytest.raises(names.ConfigError, match="criterion must be one of 'viterbi'"):
        names.check_fields(
            "loss", strings.string_loss, {"criterion": "forwards"}, ("outputs", "batch")
        )


def collapse(criterion):
    """Train a recogniser with movable class centres and measure the result.

    The penalty of a class is the squared distance of a piece's features to the
    class's centre, so that it is never negative (section VI-A of the paper, with
    trained RBF centres).

    Returns:
      Mean loss, spread of the features over pieces, fraction of misread strings.
    """
    rng = np.random.default_rng(0)
    batch_size, length, inputs = 32, 3, 6
    label = rng.integers(0, CLASSES, (batch_size, length)).astype(np.int32)
    patterns = rng.normal(0, 1, (CLASSES, inputs))
    x = patterns[label] + rng.normal(0, 0.3, (batch_size, length, inputs))
    x = jnp.asarray(x, jnp.float32)
    batch = labelled(*label.tolist())
    params = {
        "weights": jnp.asarray(rng.normal(0, 0.5, (inputs, 2)), jnp.float32),
        "centres": jnp.asarray(rng.normal(0, 1, (CLASSES, 2)), jnp.float32),
    }

    def outputs(params):
        features = x @ params["weights"]
        offsets = features[:, :, None] - params["centres"][None, None]
        return jax.vmap(chain)(-jnp.square(offsets).sum(-1)).replace(blank=-1), features

    def mean_loss(params):
        return strings.string_loss(outputs(params)[0], batch, criterion).mean()

    optimizer = optax.adam(0.05)

    def step(carry, _):
        params, state = carry
        gradient = jax.grad(mean_loss)(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params):
        carry = params, optimizer.init(params)
        (params, _), _ = jax.lax.scan(step, carry, length=400)
        graph, features = outputs(params)
        wrong = string_errors(graph, batch).mean()
        return mean_loss(params), features.std((0, 1)).max(), wrong

    return train(params)


@pytest.mark.slow
def test_plain_viterbi_training_collapses_and_discriminative_training_does_not():
    value, spread, wrong = collapse("viterbi")
    assert value < 1e-3  # a perfect loss ...
    assert spread < 0.1  # ... because all pieces look the same
    assert wrong > 0.5
    for criterion in ("discriminative_viterbi", "discriminative_forward"):
        value, spread, wrong = collapse(criterion)
        assert spread > 1.0
        assert wrong < 0.1
