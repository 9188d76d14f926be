"""What a run is fed: the steps of each dispatch, their batches sent ahead of time.

Every dispatch ends where something is due (a log row, an evaluation, a checkpoint,
the end), so the number of steps in one changes what is done when no more than a
slow machine does.
"""

import collections
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_jax.data.sources import Item, Source
from cnn_jax.training.parallel import Devices

# Dispatches whose batches are on the devices before they are asked for: a stream's
# next images travel while the steps before them run.
AHEAD = 2
# The config's keys for what happens between steps; all happens after the last.
EVERY = ("log_every", "eval_every", "checkpoint_every")


class Dispatch(NamedTuple):
    """The steps that the devices take in one call.

    Attributes:
      last: the number of the last of them.
      count: how many.
      items: their items (see `stack`), on the devices.
      source_state: of the source, to store beside a checkpoint of step ``last``.
    """

    last: int
    count: int  # type: ignore[assignment]  # no one counts in a dispatch
    items: Any
    source_state: bytes


def feed(
    source: Source,
    devices: Devices,
    config: Mapping[str, Any],
    step: int,
    source_state: bytes,
) -> Iterator[Dispatch]:
    """The dispatches of a run, from where it stands to its end.

    What is sent ahead is not counted as taken: each dispatch carries the source's
    state after its own batches.

    Args:
      source: where batches come from.
      devices: where they are sent.
      config: of the run.
      step: optimizer steps taken so far.
      source_state: what the source gave with the last of them.

    Yields:
      One dispatch after another.
    """
    coming = _dispatches(source, devices, config, step, source_state)
    ready = collections.deque(itertools.islice(coming, AHEAD))
    while ready:
        yield ready.popleft()
        ready.extend(itertools.islice(coming, 1))


def _dispatches(
    source: Source,
    devices: Devices,
    config: Mapping[str, Any],
    step: int,
    source_state: bytes,
) -> Iterator[Dispatch]:
    batches = source.train_batches(
        config["seed"], config["batch_size"], step, source_state
    )
    most = longest(config)
    while step < config["steps"]:
        last = end_of_dispatch(step, config)
        items, states = zip(*itertools.islice(batches, last - step), strict=True)
        yield Dispatch(last, last - step, devices.split(stack(items, most)), states[-1])
        step = last


def longest(config: Mapping[str, Any]) -> int:
    """The most steps that a dispatch of this run can have."""
    due = [config[key] for key in EVERY if config[key]]
    return min(config["steps_per_execution"], config["steps"], *due)


def end_of_dispatch(step: int, config: Mapping[str, Any]) -> int:
    """The last step of the dispatch that begins after ``step``."""
    due = [(step // config[key] + 1) * config[key] for key in EVERY if config[key]]
    return min(step + config["steps_per_execution"], config["steps"], *due)


def stack(items: tuple[Item, ...], most: int) -> Item:
    """Items of one dispatch as one, along a new second axis of length ``most``.

    The first axis stays that of the batch, which the devices share. Past the last
    item it is repeated; no step looks there.
    """
    if most == 1:
        return jax.tree.map(lambda leaf: leaf[:, None], items[0])
    padded = (*items, *items[-1:] * (most - len(items)))
    return jax.tree.map(lambda *leaves: np.stack(leaves, 1), *padded)
