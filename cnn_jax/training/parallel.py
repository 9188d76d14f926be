"""Devices: the one file that knows pmap, shard_map and the axis name.

A step is written for one device's part of the batch and meets the others only
through `psum` and `pmean`. `Devices.compile` maps it over all devices with
``jax.pmap`` or ``jax.shard_map``; both give the same numbers.
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
    """Sum over devices; only inside a step."""
    return jax.lax.psum(tree, AXIS)


def pmean(tree: Any) -> Any:
    """Mean over devices; only inside a step."""
    return jax.lax.pmean(tree, AXIS)


def device_index() -> jax.Array:
    """This device's place along the batch; only inside a step."""
    return jax.lax.axis_index(AXIS)


class Devices:
    """The devices of a run and how arrays lie on them.

    Where several hosts train together, each has an equal share of the devices,
    and of each batch it holds the rows of its own.

    Args:
      mode: 'pmap' or 'shard_map'.
      count: number of devices, over all hosts; 0 for all there are.

    Raises:
      ConfigError: unknown mode, more devices than there are, or hosts whose
        devices differ.
    """

    def __init__(self, mode: str = "pmap", count: int = 0):
        if mode not in MODES:
            raise names.choices("parallel.mode", mode, MODES)
        available = jax.devices()
        if not 0 <= count <= len(available):
            raise names.ConfigError(
                f"parallel.devices {count}: this machine has {len(available)} "
                f"{available[0].platform} device(s); 0 takes all of them"
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
        """The same number of every host's devices, host by host."""
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
                f"parallel.devices {count} does not divide over {self.hosts} hosts"
            )
        return [device for part in parts for device in part[: count // self.hosts]]

    def check_batch(self, batch_size: int, key: str) -> None:
        """Refuse a batch that the devices cannot share equally."""
        if batch_size < 1 or batch_size % self.count:
            raise names.ConfigError(
                f"{key} {batch_size} does not divide over {self.count} device(s)"
                f"{f' of {self.hosts} hosts' if self.hosts > 1 else ''}; "
                f"take a positive multiple of {self.count}, or set parallel.devices"
            )

    def norm(self, batch_size: int, group_size: int) -> Callable[..., BatchNorm]:
        """Batch norm whose statistics are those of ``group_size`` images.

        Args:
          batch_size: images of a global batch.
          group_size: images that share statistics: 0 for each device's own part;
            fewer for several groups on a device; more for groups across devices.

        Returns:
          The module to use as a network's ``norm`` field.

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
            f"parallel.bn_group_size {group_size}: groups must divide the {own} "
            f"images of a device ({batch_size} over {self.count}), or be a multiple "
            f"of them that divides {batch_size}; 0 groups by device"
        )

    def compile(self, step: Callable[..., Any], donate_state: bool) -> Callable:
        """Map ``step(state, resident, item) -> (tree, ...)`` over the devices.

        Args:
          step: pure; sees the whole state and resident arrays, and its own part
            of the item; what it returns must be equal on all devices.
          donate_state: let the step write its result over its first argument.

        Returns:
          The compiled step on arrays made by `replicate` and `split`.
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
            # Checked replication would sum the gradients of replicated
            # parameters by itself, and ours would count every device twice.
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donate)

    def replicate(self, tree: Any) -> Any:
        """Host arrays, equal on all hosts, to every device, whole."""
        if self.mode == "shard_map":
            return self._place(tree, self._whole)

        def one(leaf: Any) -> jax.Array:
            host = np.asarray(leaf)[None]
            pieces = [jax.device_put(host, device) for device in self._local]
            shape = (len(self._local), *host.shape[1:])
            return jax.make_array_from_single_device_arrays(shape, self._own, pieces)

        return jax.tree.map(one, tree)

    def split(self, item: Any) -> Any:
        """This host's rows of a global batch to its devices, by their leading axis."""
        if self.mode == "shard_map":
            return self._place(item, self._split)
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(len(self._local), -1, *leaf.shape[1:]), item
        )
        return jax.device_put(parts, self._own)

    def _place(self, tree: Any, sharding: NamedSharding) -> Any:
        """Arrays over the devices of all hosts, from this host's part of them."""
        if self.hosts == 1:
            return jax.device_put(tree, sharding)
        copies = 1 if sharding is self._whole else self.hosts

        def one(leaf: Any) -> jax.Array:
            leaf = np.asarray(leaf)
            shape = tuple(n * copies for n in leaf.shape[:1]) + leaf.shape[1:]
            return jax.make_array_from_process_local_data(sharding, leaf, shape)

        return jax.tree.map(one, tree)

    def highest(self, number: int) -> jax.Array:
        """The highest of the hosts' numbers, to be read later with `int`.

        Every host must call it at the same place among the compiled steps.
        """
        own = np.full(len(self._local), number, np.int32)
        shape = (self.count,)
        numbers = jax.make_array_from_process_local_data(self._split, own, shape)
        return jax.jit(jnp.max, out_shardings=self._whole)(numbers)

    def fetch(self, tree: Any) -> Any:
        """Replicated arrays back to the host, one copy."""
        if self.mode == "shard_map":
            return jax.device_get(tree)
        first = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, tree)
        # a reshape, since [0] would turn an array of one number into a scalar
        return jax.tree.map(
            lambda leaf: leaf.reshape(leaf.shape[1:]), jax.device_get(first)
        )
