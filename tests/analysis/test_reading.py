"""Errors of a reader on its test lines, and its explanation of one line."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.analysis import reading
from cnn_jax.data import Arrays, Dataset
from cnn_jax.training import strings
from configs import gtn_digits
from tests.models import drawn


class Small(nn.Module):
    """A fast-compiling recogniser."""

    num_classes: int = 2

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes)(x[:, ::8, ::8].reshape(len(x), -1))


def glyphs() -> Dataset:
    """A stroke and a block."""
    images = np.zeros((2, 20, 20, 1), np.uint8)
    images[0, :, 8:12] = images[1, 8:, 4:16] = 255
    part = Arrays(images, np.arange(2, dtype=np.int32))
    return Dataset("glyphs", 2, part, part)


@pytest.fixture(scope="module")
def reader():
    config = gtn_digits.get_config().system.to_dict()
    config["dataset"] |= {
        "digits": {"name": f"{__name__}:glyphs"},
        **{"num_lines": 6, "min_length": 1, "max_length": 3, "touching": 0.0},
    }
    config["model"] |= {"recognizer": f"{__name__}:Small", "cuts": 6, "pieces": 2}
    return reading.Reader({**config, "eval_batch_size": 4})


def test_errors_count_each_line_and_each_digit_once(reader, monkeypatch):
    """The last batch of four has two lines."""
    counts = {
        "string_errors": lambda _, batch: batch["length"] > 1,
        "digit_edits": lambda _, batch: batch["length"] - 1,
        "spellable": lambda _, batch: batch["length"] < 3,
        "string_loss": lambda _, batch: 0.5 * batch["length"],
    }
    for name, count in counts.items():
        monkeypatch.setattr(strings, name, count)
    found = reader(drawn.variables(reader.model, *reader.source.image_shape)["params"])
    [batch] = reader.source.eval_batches("test", 6)
    length = np.array(batch["length"])
    assert 0 < (length < 3).sum() < 6
    expected = {
        "string_error": (length > 1).mean(),
        "digit_error": (length - 1).sum() / length.sum(),
        "unspellable": (length >= 3).mean(),
        "loss": 0.5 * length.mean(),
    }
    assert found == pytest.approx(expected)


def test_the_line_that_the_last_system_alone_reads_is_explained(reader, monkeypatch):
    def errors(graph, batch):
        first = (jnp.where(jnp.isfinite(graph.score), graph.score, 0.0) != 0).any()
        return jnp.where(first, jnp.array([0, 1, 1, 1]), jnp.array([0, 1, 0, 0]))

    # Of lines 2 and 3, misread by the first system alone, the first is shown.
    monkeypatch.setattr(strings, "string_errors", errors)
    shape = reader.source.image_shape
    params = drawn.variables(reader.model, *shape)["params"]
    others = jax.tree.map(np.zeros_like, params)
    found = reading.explain(reader, [params, others])
    batch = next(iter(reader.source.eval_batches("test", 4)))
    for each in found:
        np.testing.assert_array_equal(each.image, batch["image"][2, :, :, 0])
        label = batch["label"][2, : batch["length"][2]]
        np.testing.assert_array_equal(each.label, label)
        last = len(each.cut) - 1
        assert each.present.shape == (6, 2)
        assert each.posterior.shape == (6, 2, 2)
        # One arc of every path ends at the last cut.
        assert each.posterior[last].sum() == pytest.approx(1, abs=1e-5)
        assert (each.posterior[~each.present] == 0).all()
        # The best path joins the first cut and the last one.
        assert (each.source[0], each.target[-1]) == (0, last)
        np.testing.assert_array_equal(each.source[1:], each.target[:-1])
        assert len(each.read) == len(each.source)
    # All pieces of equal scores: their classes are as likely.
    equal = found[1].posterior
    np.testing.assert_allclose(equal[..., 0], equal[..., 1], atol=1e-6)
