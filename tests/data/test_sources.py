"""Order of batches, resuming, evaluation and several processes."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.data import Arrays, Dataset, sources

TRAIN, TEST = 10, 7


def dataset() -> Dataset:
    """Images that contain their own index, and labels that depend on it."""
    parts = []
    for first, count in ((0, TRAIN), (100, TEST)):
        number = np.arange(first, first + count)
        images = number.astype(np.uint8).reshape(count, 1, 1, 1)
        parts.append(Arrays(images, (number % 3).astype(np.int32)))
    return Dataset("numbers", 3, *parts)


def steps(source, seed, batch_size, first, count):
    found = itertools.islice(source.train_batches(seed, batch_size, first), count)
    return [item["index"] for item, state in found]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 23])
def test_epochs_follow_one_another_without_a_gap(batch_size):
    batches = steps(sources.InMemory(dataset()), 0, batch_size, 0, 60)
    assert {len(batch) for batch in batches} == {batch_size}
    stream = np.concatenate(batches)
    epochs = stream[: len(stream) // TRAIN * TRAIN].reshape(-1, TRAIN)
    assert (np.sort(epochs, 1) == np.arange(TRAIN)).all()
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


@pytest.mark.parametrize("batch_size", [3, 23])
@pytest.mark.parametrize("first", [1, 3, 10, 11])
def test_a_step_alone_determines_its_batch(batch_size, first):
    source = sources.InMemory(dataset())
    whole = steps(source, 5, batch_size, 0, first + 4)
    np.testing.assert_array_equal(whole[first:], steps(source, 5, batch_size, first, 4))
    assert not np.array_equal(whole, steps(source, 6, batch_size, 0, first + 4))


def test_order_is_the_same_on_every_machine():
    batches = steps(sources.InMemory(dataset()), 7, 5, 0, 2)
    np.testing.assert_array_equal(batches, [[8, 4, 3, 6, 2], [1, 0, 5, 9, 7]])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 16])
def test_evaluation_sees_every_example_once(split, batch_size):
    source = sources.InMemory(dataset())
    resident, take = source.resident(), jax.jit(source.take)
    seen = []
    for item in source.eval_batches(split, batch_size):
        batch = take(resident, item)
        assert batch["image"].shape == (batch_size, 1, 1, 1)
        assert batch["image"].dtype == np.uint8
        kept = np.asarray(batch["mask"]) == 1
        number = np.asarray(batch["image"])[kept].ravel()
        np.testing.assert_array_equal(np.asarray(batch["label"])[kept], number % 3)
        seen += number.tolist()
    first, count = {"train": (0, TRAIN), "test": (100, TEST)}[split]
    assert seen == list(range(first, first + count))


def test_training_batches_have_a_full_mask():
    source = sources.InMemory(dataset())
    item, state = next(source.train_batches(0, 4, 0))
    assert state == b""
    batch = jax.jit(source.take)(source.resident(), item)
    np.testing.assert_array_equal(batch["mask"], np.ones(4))
    np.testing.assert_array_equal(batch["image"].ravel(), item["index"])


def test_processes_share_a_batch():
    alone = sources.InMemory(dataset())
    hosts = [sources.InMemory(dataset(), index, 2) for index in range(2)]
    parts = [steps(host, 0, 4, 0, 5) for host in hosts]
    np.testing.assert_array_equal(
        np.concatenate(parts, 1), np.stack(steps(alone, 0, 4, 0, 5))
    )
    masks = [item["mask"] for host in hosts for item in host.eval_batches("test", 4)]
    assert {len(mask) for mask in masks} == {2}
    assert sum(mask.sum() for mask in masks) == TEST
    with pytest.raises(names.ConfigError, match="5 is not divisible by 2 processes"):
        next(hosts[0].train_batches(0, 5, 0))


def test_source_of_a_config_section(digits_dir):
    source = sources.open_source({"name": "digits", "data_dir": digits_dir})
    assert (source.num_train, source.num_test) == (1500, 297)
    assert (source.num_classes, source.image_shape) == (10, (8, 8, 1))
    assert source.evaluated == "test"
    assert 0.2 < float(source.statistics().channel_mean[0]) < 0.4


def test_statistics_are_kept_beside_the_data(tmp_path, monkeypatch):
    part = dataset().train
    kept = Dataset("numbers", 3, part, part, path=str(tmp_path))
    monkeypatch.setattr(sources, "CACHE_FROM", TRAIN)
    found = sources.InMemory(kept).statistics()
    np.testing.assert_allclose(found.pixel_mean, np.arange(TRAIN).mean() / 255)
    monkeypatch.delattr(sources, "statistics")  # not computed again
    again = sources.InMemory(kept).statistics()
    np.testing.assert_array_equal(again.pixel_std, found.pixel_std)
    brighter = dataclasses.replace(kept, train=Arrays(part.images + 1, part.labels))
    with pytest.raises(NameError, match="statistics"):  # other data has none yet
        sources.InMemory(brighter).statistics()


def test_views_are_averaged_as_probabilities():
    logits = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.4, 0.6]])) + 3
    found = sources.average_views(logits, jnp.array([0, 1]))
    np.testing.assert_allclose(np.exp(found), [[0.7, 0.3], [0.3, 0.7]], rtol=1e-6)
    single = sources.average_views(logits, jnp.arange(4))
    np.testing.assert_array_equal(single, logits)


def test_of_ten_crops_the_fifth_is_the_central_one():
    images = jnp.arange(20).reshape(20, 1, 1, 1)
    found = sources.central_view(images, jnp.ones(2))
    assert found.ravel().tolist() == [4, 14]
    assert sources.central_view(images, jnp.ones(20)) is images
    with pytest.raises(names.ConfigError, match="one view or ten crops, got 2"):
        sources.central_view(images, jnp.ones(10))
