"""The facts of a data set are stored, so that the data is opened late."""

import dataclasses

import jax
import numpy as np
import pytest

from cnn_jax.data.facts import Facts, Recorded
from cnn_jax.data.sources import InMemory
from cnn_jax.names import ConfigError
from tests import tiny


@pytest.fixture(scope="module")
def source():
    named = dataclasses.replace(tiny.noise(40), class_names=("a", "b", "c"))
    return InMemory(named)


@pytest.fixture(scope="module")
def facts(source):
    return Facts.of(source, source.statistics())


def test_facts_survive_the_file_and_damage_is_seen(source, facts):
    content = facts.to_bytes()
    found = Facts.from_bytes(content)
    assert (found.name, found.num_classes, found.class_names) == (
        "noise",
        3,
        tuple("abc"),
    )
    assert found.image_shape == (6, 6, 1)
    assert (found.num_train, found.num_test, found.evaluated) == (40, 10, "test")
    assert found.fingerprint == source.fingerprint
    assert (found.strings, found.endless) == (False, False)
    np.testing.assert_array_equal(
        found.statistics.pixel_mean, source.statistics().pixel_mean
    )
    assert found.to_bytes() == content
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    for wrong in (bytes(damaged), content[:-40], b""):
        assert Facts.from_bytes(wrong) is None


def test_the_data_is_opened_when_batches_are_asked_for_and_once(source, facts):
    opened = []
    recorded = Recorded(facts, lambda: opened.append(1) or source, "run")
    recorded.statistics()
    assert not opened
    batch = next(recorded.eval_batches("test", 4))
    np.testing.assert_array_equal(batch["index"], [40, 41, 42, 43])
    taken = recorded.take(*jax.device_put((recorded.resident(), batch)))
    np.testing.assert_array_equal(taken["label"], source.dataset.test.labels[:4])
    assert opened == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "0" * 64}, r"run was trained on other data \(fingerprint"),
        ({"fingerprint": "", "num_classes": 4}, "run needs data with num_classes 4"),
        (
            {"fingerprint": "", "image_shape": (6, 6, 3)},
            r"image_shape \(6, 6, 3\), got",
        ),
    ],
)
def test_other_data_is_refused(source, facts, change, message):
    recorded = Recorded(dataclasses.replace(facts, **change), lambda: source, "run")
    with pytest.raises(ConfigError, match=message):
        recorded.resident()
