"""The dispatches of a run: groups of steps, with their batches sent ahead.

A dispatch ends wherever something is due (a log row, an evaluation, a checkpoint, the
end of the run), so the number of steps per dispatch affects speed only.
"""

import collections
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_jax.data.sources import Item, Source
from cnn_jax.training.parallel import Devices

# Dispatches whose batches are sent to the devices in advance, so that transfers
# overlap with the preceding steps.
AHEAD = 2
# Config keys of the events between steps; all events also follow the last step.
EVERY = ("log_every", "eval_every", "checkpoint_every")


class Dispatch(NamedTuple):
    """The steps that the devices take in one call.

    Attributes:
      last: number of the last step.
      count: number of steps.
      items: the items of the steps (see `stack`), on the devices.
      source_state: state of the source, to store in a checkpoint of step ``last``.
    """

    last: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    items: Any
    source_state: bytes


def feed(
    source: Source,
    devices: Devices,
    config: Mapping[str, Any],
    step: int,
    source_state: bytes,
) -> Iterator[Dispatch]:
    """The remaining dispatches of a run.

    Batches sent ahead do not count as consumed: each dispatch carries the state of
    the source after its own batches.

    Args:
      source: the source of batches.
      devices: the devices that receive them.
      config: of the run.
      step: optimizer steps taken so far.
      source_state: state of the source after that step.

    Yields:
      The dispatches in order.
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
    """The maximum number of steps in a dispatch of this run."""
    due = [config[key] for key in EVERY if config[key]]
    return min(config["steps_per_execution"], config["steps"], *due)


def end_of_dispatch(step: int, config: Mapping[str, Any]) -> int:
    """The last step of the dispatch that begins after ``step``."""
    due = [(step // config[key] + 1) * config[key] for key in EVERY if config[key]]
    return min(step + config["steps_per_execution"], config["steps"], *due)


def stack(items: tuple[Item, ...], most: int) -> Item:
    """Stack the items of one dispatch along a new second axis of length ``most``.

    The first axis remains the batch, which is split over the devices. The last item
    is repeated as padding, which no step reads.
    """
    if most == 1:
        return jax.tree.map(lambda leaf: leaf[:, None], items[0])
    padded = (*items, *items[-1:] * (most - len(items)))
    return jax.tree.map(lambda *leaves: np.stack(leaves, 1), *padded)
