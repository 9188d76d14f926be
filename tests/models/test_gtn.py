"""The two readers against the recogniser applied to each piece and position."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import graphs, models, names
from cnn_jax.data import preprocess, sources
from cnn_jax.models.gtn import OverSegmentation, SpaceDisplacement
from cnn_jax.models.lenet import LeNet5
from configs import gtn_digits

PAPER = -0.1


class Small(nn.Module):
    """A recogniser of three classes that compiles fast."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train):
        x = nn.avg_pool(x, (4, 4), strides=(4, 4))
        return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1))


SMALL = {"recognizer": f"{__name__}:Small", "cuts": 6, "pieces": 3, "average": 4}


def lines():
    """Three lines: bars of ink at known columns; one line is empty."""
    x = np.full((3, 32, 40, 1), PAPER, np.float32)
    for left, right in ((4, 8), (11, 17), (20, 22)):
        x[0, 6:20, left:right] = 1.0
    for left, right in ((2, 12), (15, 30)):
        x[1, 6:20, left:right] = 1.0
    return jnp.asarray(x)


def applied(model):
    """The graphs that a model builds from lines, as NumPy arrays."""
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
    return lambda v, x: jax.device_get(apply(v, x))


@pytest.fixture(scope="module")
def system():
    model = OverSegmentation(num_classes=3, most_width=14, **SMALL)
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(
        lines()
    )
    return model, variables, applied(model)


def test_each_arc_has_the_score_of_its_piece_alone(system):
    model, variables, apply = system
    x = lines()
    graph = apply(variables, x)
    assert graph.score.shape == (3, 6, 9)
    found = jax.device_get(jax.jit(model.segment)(x))
    np.testing.assert_array_equal(found.count, [4, 3, 1])
    np.testing.assert_array_equal(found.cut[0, :4], [4, 9, 18, 22])
    spans = {
        (0, 1, 0): (4, 8),
        (0, 2, 0): (11, 17),
        (0, 2, 1): (4, 17),
        (0, 3, 0): (20, 22),
        (0, 3, 1): (11, 22),
        (1, 1, 0): (2, 12),
        # 4 to 22 and 15 to 30 are too wide
    }
    present = {tuple(place) for place in np.argwhere(found.present).tolist()}
    assert present == set(spans)
    scores = graph.score.reshape(3, 6, 3, 3)
    np.testing.assert_array_equal(
        np.isfinite(scores), np.broadcast_to(found.present[..., None], scores.shape)
    )
    recognizer = {"params": variables["params"]["recognizer"]}
    alone = jax.jit(lambda image: Small().apply(recognizer, image, train=False)[0])
    x = np.asarray(x)
    for (line, node, piece), (left, right) in spans.items():
        image = np.full((1, 32, 32, 1), PAPER, np.float32)
        begin = 16 - (left + right) // 2 + left
        image[0, :, begin : begin + right - left] = x[line, :, left:right]
        np.testing.assert_allclose(
            scores[line, node, piece], alone(image), rtol=1e-5, atol=1e-5
        )


def test_arcs_join_the_cuts_and_read_the_classes(system):
    _, variables, apply = system
    graph = apply(variables, lines())
    np.testing.assert_array_equal(graph.label[0, 0], [0, 1, 2] * 3)
    np.testing.assert_array_equal(graph.source[0, 3], [2] * 3 + [1] * 3 + [0] * 3)
    np.testing.assert_array_equal(np.isfinite(graph.initial).argmax(1), [0, 0, 0])
    np.testing.assert_array_equal(np.isfinite(graph.final).argmax(1), [3, 2, 0])


def test_a_line_without_ink_is_the_empty_string(system):
    _, variables, apply = system
    graph = jax.tree.map(lambda leaf: jnp.asarray(leaf[2]), apply(variables, lines()))
    assert jax.jit(graphs.forward)(graph) == 0.0
    assert jax.jit(graphs.viterbi)(graph).length == 0


def test_normalized_scores_of_a_piece_are_log_posteriors(system):
    model, variables, apply = system
    raw = apply(variables, lines()).score.reshape(3, 6, 3, 3)
    other = applied(model.clone(normalize=True))
    score = other(variables, lines()).score.reshape(3, 6, 3, 3)
    there = np.isfinite(raw)
    wanted = np.asarray(jax.nn.log_softmax(jnp.where(there, raw, 0.0)))
    np.testing.assert_allclose(score[there], wanted[there], rtol=1e-5, atol=1e-6)


def test_of_too_many_pieces_the_widest_are_left_out(system):
    model, variables, apply = system
    x = jnp.concatenate([lines()[:1]] * 9)  # 5 pieces per line, room for 3
    few = applied(model.clone(average=1))(variables, x)
    all_ = apply(variables, x)
    kept, there = np.isfinite(few.score), np.isfinite(all_.score)
    np.testing.assert_array_equal(few.score[kept], all_.score[kept])
    assert kept.sum() == 9 * 3 * 3
    narrow = there & (np.arange(9) < 3)
    np.testing.assert_array_equal(kept, narrow)
    # A single line always fits.
    one = applied(model.clone(average=1))(variables, x[:1])
    assert np.isfinite(one.score).sum() == there[:1].sum()


def test_few_lines_of_the_shipped_digits_lose_no_piece():
    config = gtn_digits.get_config().system.to_dict()
    model = models.create(**config["model"], num_classes=10)
    assert (model.room(32), model.room(64)) == (32 * 16, 64 * 16)
    source = sources.open_source(config["dataset"])
    prepare = preprocess.build(config["preprocess"], source.statistics())
    segment = jax.jit(lambda image: model.segment(prepare(image)).present)
    counts = np.concatenate(
        [
            np.asarray(segment(source.train.batch(step, 256)["image"])).sum((1, 2))
            for step in range(8)
        ]
    )
    for n in range(1, 33):
        of_shards = counts[: len(counts) // n * n].reshape(-1, n).sum(1)
        assert of_shards.max() <= model.room(n), n


def test_sweeping_lenet_equals_applying_it_at_each_position():
    model = models.create("sdnn", 3, margin=6)
    x = jax.random.normal(jax.random.key(0), (2, 32, 44, 1))
    variables = jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)
    graph = applied(model)(variables, x)
    positions = (44 + 12 - 32) // 4 + 1
    assert graph.score.shape == (2, positions + 1, 4)
    assert graph.blank == 3
    padded = jnp.pad(x, ((0, 0), (0, 0), (6, 6), (0, 0)), constant_values=PAPER)
    net = LeNet5(4, activation="relu", subsampling="max", c3="dense", output="linear")
    windows = jnp.concatenate(
        [padded[:, :, 4 * place : 4 * place + 32] for place in range(positions)]
    )
    alone = applied(net)({"params": variables["params"]["recognizer"]}, windows)
    alone = alone.reshape(positions, 2, 4).swapaxes(0, 1)
    np.testing.assert_allclose(graph.score[:, 1:], alone, rtol=1e-4, atol=1e-4)
    assert (graph.score[:, 0] == -np.inf).all()


def test_lenet_of_1998_sweeps_lines_too():
    net = LeNet5(10)
    x = jax.random.normal(jax.random.key(0), (1, 32, 40, 1))
    init = jax.jit(lambda x: net.init(jax.random.key(1), x, train=False))
    variables = init(x[:, :, :32])
    swept = applied(net.clone(line=True))(variables, x)
    assert swept.shape == (1, 3, 10)
    apply = applied(net)
    for place in range(3):
        alone = apply(variables, x[:, :, 4 * place : 4 * place + 32])
        np.testing.assert_allclose(swept[:, place], alone, rtol=1e-4, atol=1e-4)


def test_a_piece_between_two_cuts_is_the_least():
    assert models.create("gtn", 10, **{**SMALL, "cuts": 2, "pieces": 1}).pieces == 1


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("gtn", {"cuts": 1}, "a digit needs 2 cuts"),
        ("gtn", {"pieces": 0}, "1 piece, got cuts 14, pieces 0"),
        ("gtn", {"most_width": 40}, "most_width 40 and field 32 must not decrease"),
        ("gtn", {"least_width": 0}, "least_width 0"),
        ("gtn", {"radius": 0}, "at least 1 column, got radius 0, reach 8"),
        ("gtn", {"reach": -1}, "at least 1 column, got radius 1, reach -1"),
        ("gtn", {"recognizer": "lenet"}, "unknown recognizer 'lenet'"),
        ("sdnn", {"recognizer": "lenet"}, "unknown recognizer 'lenet'"),
        ("sdnn", {"margin": -1}, "margin -1 is negative"),
        ("gtn", {"num_classes": 0}, "num_classes must be positive"),
        ("gtn", {"cut": 3}, "did you mean 'cuts'"),
    ],
)
def test_fields_that_make_no_system_are_refused(name, fields, message):
    with pytest.raises(names.ConfigError, match=message):
        models.create(name, **{"num_classes": 10, **fields})


@pytest.mark.parametrize("shape", [(1, 28, 40, 1), (1, 32, 40, 3)])
@pytest.mark.parametrize("kind", [OverSegmentation, SpaceDisplacement])
def test_other_images_than_lines_are_refused(kind, shape):
    model = kind(num_classes=10)
    with pytest.raises(ValueError, match=r"expects lines \(n, 32, width, 1\)"):
        jax.eval_shape(
            lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False)
        )
