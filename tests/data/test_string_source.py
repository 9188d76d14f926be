"""Lines of digits as a source: deterministic by step, fixed for evaluation."""

import itertools

import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.data import Arrays, Dataset, memory, sources


def three_glyphs() -> Dataset:
    """Three training digits; the same three, dimmer, for testing."""
    images = np.zeros((3, 8, 8, 1), np.uint8)
    for digit in range(3):
        images[digit, :, : 3 + digit] = 250
    labels = np.arange(3, dtype=np.int32)
    dim = (images * 0.8).astype(np.uint8)
    return Dataset("glyphs", 3, Arrays(images, labels), Arrays(dim, labels))


SECTION = {
    "name": "digit_strings",
    "digits": {"name": f"{__name__}:three_glyphs"},
    "num_lines": 10,
    "height": 12,
    "glyph_height": 8,
    "jitter": 2,
    "max_length": 4,
}


def open_lines(process_index=0, process_count=1, **fields):
    return sources.open_source({**SECTION, **fields}, process_index, process_count)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


def test_it_is_a_source_of_the_shapes_that_it_names():
    source = open_lines()
    assert isinstance(source, sources.Source)
    assert source.num_classes == 3
    item, state = next(source.train_batches(0, 4, 0))
    assert state == b""
    assert item["image"].shape == (4, *source.image_shape)
    assert item["label"].shape == (4, 4)
    batch = source.take({}, item)
    np.testing.assert_array_equal(batch["mask"], np.ones(4))


def test_a_stream_goes_on_where_it_stopped():
    source = open_lines()
    whole = [item for item, _ in itertools.islice(source.train_batches(5, 4, 0), 4)]
    late = [item for item, _ in itertools.islice(source.train_batches(5, 4, 2), 2)]
    for one, other in zip(whole[2:], late, strict=True):
        assert_equal(one, other)
    other_seed, _ = next(source.train_batches(6, 4, 0))
    assert not np.array_equal(other_seed["image"], whole[0]["image"])


def test_evaluation_sees_the_same_lines_once_whatever_the_batch():
    source = open_lines()
    small, large = (list(source.eval_batches("test", size)) for size in (4, 16))
    real = [item["mask"] > 0 for item in small]
    assert sum(mask.sum() for mask in real) == large[0]["mask"].sum() == 10
    for key in ("image", "label", "length"):
        seen = np.concatenate(
            [item[key][mask] for item, mask in zip(small, real, strict=True)]
        )
        np.testing.assert_array_equal(seen, large[0][key][:10])


def test_training_and_test_lines_are_of_their_own_digits():
    source = open_lines()
    (train,), (test,) = (source.eval_batches(part, 10) for part in ("train", "test"))
    assert train["image"].max() == 250
    assert test["image"].max() == 200
    item, _ = next(source.train_batches(0, 4, 0))
    assert item["image"].max() == 250


def test_processes_share_a_batch():
    whole, _ = next(open_lines().train_batches(0, 4, 1))
    parts = [next(open_lines(i, 2).train_batches(0, 4, 1))[0] for i in range(2)]
    for key in whole:
        both = np.concatenate([part[key] for part in parts])
        np.testing.assert_array_equal(both, whole[key])


def test_isolated_digits_have_one_label_each():
    source = open_lines(isolated=True)
    item, _ = next(source.train_batches(0, 4, 0))
    assert source.image_shape == (12, 12, 1)
    assert item["image"].shape == (4, 12, 12, 1)
    assert item["label"].shape == (4,)


def test_the_fingerprint_tells_lines_apart():
    assert open_lines().fingerprint == open_lines().fingerprint
    assert open_lines(touching=0.2).fingerprint != open_lines().fingerprint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_length": 0}, "min_length must be at least 1"),
        ({"touch": 0.5}, "unknown field of dataset 'digit_strings' 'touch'"),
        ({"num_lines": 0}, "num_lines 0 is not positive"),
        ({"num_lines": 2**31 - 1}, r"2,147,483,647 lines of .* GB of memory, but"),
        ({"max_length": 2**31 - 1}, "GB of memory, but .* available"),
        ({"glyph_height": 0}, "glyph_height must be at least 1"),
        ({"glyph_height": 30_000, "height": 32_000}, "digits of 30000x.* GB of memory"),
        ({"height": 10**6}, "height at most 32767, got .* and 1000000"),
        ({"spacing": (1,)}, r"spacing must be tuple\[int, int\], got \(1,\)"),
        ({"digits": {"name": "nothing"}}, "nothing"),
        ({"digits": {}}, "dataset.digits needs a 'name'"),
        ({"digits": "digits"}, "digits must be a section, got 'digits'"),
        ({"digits": SECTION}, "generates its own batches and has no images"),
        ({"stream": {"workers": 1}}, "generates its own batches and cannot be st"),
        ({"stream": "yes"}, "dataset.stream must be a section, got 'yes'"),
    ],
)
def test_what_makes_no_lines_is_refused(fields, message, monkeypatch):
    monkeypatch.setattr(memory, "total", lambda: 10**9)
    with pytest.raises(names.ConfigError, match=message):
        open_lines(**fields)
