"""The examples of each batch: seeded permutations, cut without gaps."""

import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Int, Int32

from cnn_jax import names
from cnn_jax.data.dataset import random_order


def shuffled(
    seed: int, size: int, positions: Int[np.ndarray, " n"]
) -> Int32[np.ndarray, " n"]:
    """Numbers of the examples at given positions of the endless stream of epochs.

    Seed and epoch determine the permutation of each epoch. Permutations are
    concatenated, so a batch may straddle two of them and none is truncated.

    Args:
      seed: seed of the permutations.
      size: examples per epoch.
      positions: positions in the stream, from 0.

    Returns:
      A number in 0 ... size - 1 for each position.
    """
    epochs, places = np.divmod(positions, size)
    numbers = np.empty(len(positions), np.int32)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        numbers[chosen] = _epoch(size, seed, int(epoch))[places[chosen]]
    return numbers


def in_order(
    size: int, batch_size: int
) -> Iterator[tuple[Int32[np.ndarray, " batch"], Float32[np.ndarray, " batch"]]]:
    """Numbers 0 ... size - 1 in batches, the last one padded with 0.

    Args:
      size: total number of examples.
      batch_size: examples per batch.

    Yields:
      The numbers, and a mask that is 0 on padding.
    """
    for start in range(0, size, batch_size):
        numbers = np.arange(start, start + batch_size, dtype=np.int32)
        mask = numbers < size
        yield np.where(mask, numbers, 0), mask.astype(np.float32)


def process_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """The rows of a global batch that belong to a process.

    Raises:
      ConfigError: the batch is not divisible by the number of processes.
    """
    if batch_size < 1 or batch_size % process_count:
        raise names.ConfigError(
            f"batch size {batch_size} is not divisible by {process_count} processes"
        )
    size = batch_size // process_count
    return slice(process_index * size, (process_index + 1) * size)


@functools.lru_cache(maxsize=4)
def _epoch(size: int, seed: int, epoch: int) -> np.ndarray:
    return random_order(size, seed, epoch).astype(np.int32)
