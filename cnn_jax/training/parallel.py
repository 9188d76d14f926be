"""Devices: the only file that uses pmap, shard_map and the axis name.

A step is written for one device's shard of the batch and communicates with the other
devices only through `psum`, `sum_gradients` and `pmean`. `Devices.compile` maps it over
all devices with ``jax.pmap`` or ``jax.shard_map``; both give the same numbers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnn_jax import names
from cnn_jax.models.layers import BatchNorm
from cnn_jax.training import hosts

AXIS = "batch"
MODES = ("pmap", "shard_map")
SPLIT = PartitionSpec(AXIS)


def psum(tree: Any) -> Any:
    """Sum over devices; for use inside a step."""
    return jax.lax.psum(tree, AXIS)


def sum_gradients(gradients: Any) -> Any:
    """Sum gradients over devices; for use inside a step.

    On one device the all-reduce only copies its operands. It also keeps XLA from fusing
    a gradient's sum into the update, which it does differently inside the loop of
    several steps, whose bits would then not be those of single steps. The gradient of
    a dense kernel is a matrix product, which XLA does not fuse into the update. AlexNet
    has 59 million weights in such kernels, so the copy would cost time.
    """
    if jax.lax.axis_size(AXIS) > 1:
        return psum(gradients)

    def summed(path: Any, leaf: jax.Array) -> jax.Array:
        dense = getattr(path[-1], "key", "") == "kernel" and leaf.ndim == 2
        return leaf if dense else psum(leaf)

    return jax.tree_util.tree_map_with_path(summed, gradients)


def pmean(tree: Any) -> Any:
    """Mean over devices; for use inside a step."""
    return jax.lax.pmean(tree, AXIS)


def device_index() -> jax.Array:
    """Index of this device along the batch axis; for use inside a step."""
    return jax.lax.axis_index(AXIS)


class Devices:
    """The devices of a run and the placement of arrays on them.

    With several hosts, each has an equal share of the devices and holds only the
    rows of a batch that its own devices process.

    Args:
      mode: 'pmap' or 'shard_map'.
      count: number of devices, over all hosts; 0 for all available.

    Raises:
      ConfigError: unknown mode, more devices than available, or hosts with
        different devices.
    """

    def __init__(self, mode: str = "pmap", count: int = 0):
        if mode not in MODES:
            raise names.choices("parallel.mode", mode, MODES)
        available = jax.devices()
        if not 0 <= count <= len(available):
            raise names.ConfigError(
                f"parallel.devices {count}: this machine has {len(available)} "
                f"{available[0].platform} device(s); 0 uses all of them"
            )
        self.mode = mode
        self.hosts = hosts.count()
        self.devices = self._shares(available, count or len(available))
        self.count = len(self.devices)
        mesh = Mesh(np.array(self.devices), (AXIS,))
        self._local = [d for d in self.devices if d.process_index == hosts.index()]
        self._own = NamedSharding(Mesh(np.array(self._local), (AXIS,)), SPLIT)
        self._split = NamedSharding(mesh, SPLIT)
        self._whole = NamedSharding(mesh, PartitionSpec())
        self._mesh = mesh

    def _shares(self, available: Sequence[Any], count: int) -> list[Any]:
        """The same number of devices from every host, ordered by host."""
        parts = [
            [device for device in available if device.process_index == host]
            for host in range(self.hosts)
        ]
        kinds = [f"{len(part)} x {part[0].device_kind}" for part in parts if part]
        if len(parts) != len(kinds) or len(set(kinds)) > 1:
            raise names.ConfigError(
                f"all hosts need the same devices; they have {', '.join(kinds)}"
            )
        if count % self.hosts:
            raise names.ConfigError(
                f"parallel.devices {count} is not divisible by {self.hosts} hosts"
            )
        return [device for part in parts for device in part[: count // self.hosts]]

    def check_batch(self, batch_size: int, key: str) -> None:
        """Refuse a batch that does not divide equally over the devices."""
        if batch_size < 1 or batch_size % self.count:
            raise names.ConfigError(
                f"{key} {batch_size} is not divisible by {self.count} device(s)"
                f"{f' of {self.hosts} hosts' if self.hosts > 1 else ''}; "
                f"use a positive multiple of {self.count}, or set parallel.devices"
            )

    def norm(self, batch_size: int, group_size: int) -> Callable[..., BatchNorm]:
        """Batch norm with statistics over ``group_size`` images.

        Args:
          batch_size: images in a global batch.
          group_size: images that share statistics. 0: one group per device; smaller
            than a device's shard: several groups per device; larger: groups across
            devices.

        Returns:
          The value for a network's ``norm`` field.

        Raises:
          ConfigError: the groups do not divide the batch evenly over devices.
        """
        own = batch_size // self.count
        size = group_size or own
        if 0 < size <= own and own % size == 0:
            return partial(BatchNorm, groups=own // size)
        if size > own and size % own == 0 and batch_size % size == 0:
            together = size // own
            if together == self.count:
                return partial(BatchNorm, axis_name=AXIS)
            parts = np.arange(self.count).reshape(-1, together)
            index_groups = tuple(tuple(int(i) for i in part) for part in parts)
            return partial(BatchNorm, axis_name=AXIS, axis_index_groups=index_groups)
        raise names.ConfigError(
            f"parallel.bn_group_size {group_size} must divide the {own} images per "
            f"device ({batch_size} over {self.count}), or be a multiple of {own} that "
            f"divides {batch_size}; 0 groups by device"
        )

    def compile(self, step: Callable[..., Any], donate_state: bool) -> Callable:
        """Map ``step(state, resident, item) -> (tree, ...)`` over the devices.

        Args:
          step: a pure function of the whole state, the resident arrays and this
            device's shard of the item; its result must be equal on all devices.
          donate_state: donate the buffers of the state to the result.

        Returns:
          The compiled step; takes arrays from `replicate` and `split`.
        """
        donate = (0,) if donate_state else ()
        if self.mode == "pmap":
            return jax.pmap(
                step, axis_name=AXIS, devices=self.devices, donate_argnums=donate
            )
        whole, part = PartitionSpec(), PartitionSpec(AXIS)
        mapped = jax.shard_map(
            step,
            mesh=self._mesh,
            in_specs=(whole, whole, part),
            out_specs=whole,
            # With check_vma, shard_map sums the gradients of replicated
            # parameters itself, so our psum would count them once more per device.
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donate)

    def replicate(self, tree: Any) -> Any:
        """Copy host arrays, equal on all hosts, to every device."""
        if self.mode == "shard_map":
            return self._place(tree, self._whole)

        def one(leaf: Any) -> jax.Array:
            host = np.asarray(leaf)[None]
            pieces = [jax.device_put(host, device) for device in self._local]
            shape = (len(self._local), *host.shape[1:])
            return jax.make_array_from_single_device_arrays(shape, self._own, pieces)

        return jax.tree.map(one, tree)

    def split(self, item: Any) -> Any:
        """Split this host's rows of a global batch over its devices (leading axis)."""
        if self.mode == "shard_map":
            return self._place(item, self._split)
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(len(self._local), -1, *leaf.shape[1:]), item
        )
        return jax.device_put(parts, self._own)

    def _place(self, tree: Any, sharding: NamedSharding) -> Any:
        """Global arrays over the devices of all hosts, from this host's part."""
        if self.hosts == 1:
            return jax.device_put(tree, sharding)
        copies = 1 if sharding is self._whole else self.hosts

        def one(leaf: Any) -> jax.Array:
            leaf = np.asarray(leaf)
            shape = tuple(n * copies for n in leaf.shape[:1]) + leaf.shape[1:]
            return jax.make_array_from_process_local_data(sharding, leaf, shape)

        return jax.tree.map(one, tree)

    def highest(self, number: int) -> jax.Array:
        """The maximum of the hosts' numbers, computed asynchronously; read it by `int`.

        All hosts must call it at the same position among the compiled steps.
        """
        own = np.full(len(self._local), number, np.int32)
        shape = (self.count,)
        numbers = jax.make_array_from_process_local_data(self._split, own, shape)
        return jax.jit(jnp.max, out_shardings=self._whole)(numbers)

    def fetch(self, tree: Any) -> Any:
        """Fetch one copy of replicated arrays to the host."""
        if self.mode == "shard_map":
            return jax.device_get(tree)
        first = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, tree)
        # A reshape, since [0] would turn an array of one number into a scalar.
        return jax.tree.map(
            lambda leaf: leaf.reshape(leaf.shape[1:]), jax.device_get(first)
        )
