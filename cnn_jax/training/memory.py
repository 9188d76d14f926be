"""Lower bounds on the memory of a run, checked before anything is built."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.data import memory
from cnn_jax.names import ConfigError
from cnn_jax.training import feed, hosts

FLOAT, INDEX = 4, 4  # bytes


def check_images(
    config: Mapping[str, Any],
    image_shape: Sequence[int],
    augment: Callable[[Any, Any], Any],
    devices: Sequence[Any],
) -> None:
    """Refuse batches that cannot fit into memory.

    Args:
      config: a run's config.
      image_shape: shape of an image after preprocessing.
      augment: the run's augmentation, traced for its largest array per image.
      devices: the devices of the run, over all hosts.

    Raises:
      ConfigError: names the key, the memory it needs at least, and the memory
        available.
    """
    image = FLOAT * math.prod(image_shape)
    one = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    traced = jax.make_jaxpr(augment)(jax.random.key(0), one)
    made = [var.aval for step in traced.eqns for var in step.outvars]
    largest = max([image, *(a.size * FLOAT for a in made if a.ndim == 4)])
    most, batch = feed.longest(config), config["batch_size"]
    for key, size in (
        ("batch_size", batch * largest),
        ("eval_batch_size", config["eval_batch_size"] * image),
        ("steps_per_execution", most * batch * INDEX),
    ):
        _check(f"config.{key} {config[key]}", size, devices)


def check_parameters(count: int, devices: Sequence[Any]) -> None:
    """Refuse a network whose weights and gradients cannot fit on one device.

    Args:
      count: number of trainable parameters.
      devices: the devices of the run, over all hosts.

    Raises:
      ConfigError: names the memory needed at least, and the memory available.
    """
    what = f"config.model: {count:,} parameters"
    _check(what, 2 * FLOAT * count, devices, copies=True)


def _check(
    what: str, needed: int, devices: Sequence[Any], copies: bool = False
) -> None:
    """Refuse what does not fit into all devices, or, of ``copies``, into one."""
    # Devices of other hosts do not report their memory.
    local = [device for device in devices if device.process_index == hosts.index()]
    there = min(map(_of, local)) * (1 if copies else len(devices))
    there = there or memory.total() * (1 if copies else hosts.count())
    if 0 < there < needed:
        raise ConfigError(
            f"{what} needs at least {needed / 2**30:,.1f} GiB of memory, but "
            f"{there / 2**30:,.1f} GiB are available; make it smaller"
        )


def _of(device: Any) -> int:
    """Memory of an accelerator in bytes; 0 if it does not report it."""
    if device.platform == "cpu":
        return 0
    return (device.memory_stats() or {}).get("bytes_limit", 0)
