"""Dispatches end where an event is due, and carry the state of their own batches."""

import itertools

import jax
import numpy as np
import pytest

from cnn_jax.data.sources import InMemory
from cnn_jax.training.feed import AHEAD, end_of_dispatch, feed, longest
from cnn_jax.training.parallel import Devices
from tests import tiny

CONFIG = {
    "seed": 3,
    "batch_size": 4,
    "steps": 20,
    "steps_per_execution": 5,
    "log_every": 6,
    "eval_every": 0,
    "checkpoint_every": 9,
}


class Numbered(InMemory):
    """A source whose batch of step n holds 4n ... 4n + 3; it counts its batches."""

    def __init__(self):
        super().__init__(tiny.noise(4))
        self.given = 0

    def train_batches(self, seed, batch_size, step, state=b""):
        assert (seed, batch_size) == (3, 4)
        assert state == (b"after %d" % step if step else b"")
        for now in itertools.count(step):
            self.given += 1
            rows = np.arange(4 * now, 4 * now + 4, dtype=np.int32)
            yield {"index": rows}, b"after %d" % (now + 1)


@pytest.mark.parametrize("most", [1, 2, 5, 100])
def test_dispatches_end_where_something_is_due(most):
    config = {**CONFIG, "steps_per_execution": most}
    ends, step = [], 0
    while step < config["steps"]:
        before, step = step, end_of_dispatch(step, config)
        assert before < step <= before + min(most, longest(config))
        ends.append(step)
    assert {6, 9, 12, 18, 20} <= set(ends)
    assert len(ends) == {1: 20, 2: 11, 5: 7, 100: 5}[most]
    # no memory is reserved for steps beyond a dispatch
    assert longest(config) == min(most, 6)


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
@pytest.mark.parametrize(("start", "most"), [(0, 1), (0, 5), (7, 5)])
def test_every_batch_goes_to_its_step_and_devices(mode, start, most):
    devices = Devices(mode, 2)
    config = {**CONFIG, "steps_per_execution": most}
    state = b"after %d" % start if start else b""
    step = start
    for dispatch in feed(Numbered(), devices, config, step, state):
        assert dispatch.last - dispatch.count == step
        shards = dispatch.items["index"].addressable_shards
        assert [shard.device for shard in shards] == devices.devices
        for number, shard in enumerate(shards):
            own = np.asarray(shard.data).reshape(2, most)
            for place in range(dispatch.count):
                first = 4 * (step + place) + 2 * number
                assert own[:, place].tolist() == [first, first + 1]
        step = dispatch.last
        assert dispatch.source_state == b"after %d" % step
    assert step == config["steps"]


def test_batches_are_sent_before_they_are_asked_for():
    """And no more batches than the run has steps."""
    source = Numbered()
    config = {**CONFIG, "steps_per_execution": 1}
    for dispatch in feed(source, Devices("pmap", 1), config, 0, b""):
        # while this step runs, the next batch is ready, and one more is sent
        # as soon as it has been started
        waiting = source.given - dispatch.last
        assert waiting == min(AHEAD - 1, config["steps"] - dispatch.last)
        assert isinstance(dispatch.items["index"], jax.Array)
    assert source.given == config["steps"]
