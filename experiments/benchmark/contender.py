"""This package as a contender, and the machine's peak matrix-product rate."""

import collections
import timeit
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.training.feed import feed
from cnn_jax.training.loop import IN_FLIGHT
from cnn_jax.training.program import Program
from experiments.benchmark.case import Case


class Contender:
    """One framework, ready to train one case on images already on the device."""

    parameters: int  # that are trained

    def __init__(self, case: Case):
        """Called in a process of its own."""

    def run(self, steps: int) -> float:
        """Take steps, a multiple of the case's ``dispatch``; return the last loss."""
        raise NotImplementedError

    def device_memory(self) -> int | None:
        """Peak bytes on the accelerator; None for a device that uses host memory."""
        device = jax.local_devices()[0]
        if device.platform == "cpu":
            return None
        return (device.memory_stats() or {}).get("peak_bytes_in_use")


class CnnJax(Contender):
    """This package: the step of `cnn_jax.training.program`, as `fit` calls it.

    Unlike the peers' steps, its step also gathers the batch from the resident images
    and normalises their uint8 pixels.
    """

    def __init__(self, case: Case, mode: str = "pmap"):
        config = case.config()
        config["parallel"]["mode"] = mode
        self.program = program = Program(config)
        self.parameters = program.num_parameters
        self.state = program.place(program.initial_state(0))
        self.dispatches = feed(program.source, program.devices, program.config, 0, b"")
        self.steps_per_execution = case.dispatch

    def run(self, steps: int) -> float:
        """See `Contender.run`."""
        pending: collections.deque[Any] = collections.deque()
        for _ in range(steps // self.steps_per_execution):
            self.state, sums = self.program.train(self.state, next(self.dispatches))
            pending.append(sums)
            if len(pending) > IN_FLIGHT:
                jax.block_until_ready(pending.popleft())
        jax.block_until_ready(self.state)
        sums = self.program.devices.fetch(pending[-1])
        return float(sums["loss"][-1] / sums["count"][-1])


def peak_rate(dtype: str, devices: int, side: int = 0) -> float:
    """Floating-point operations per second of a large square matrix product.

    It is 2 side^3 over the shortest of three times, multiplied by the number of devices
    (on CPU these share the cores, so one product uses all of them). The default side
    is 2048 on CPU and 8192 on accelerators.
    """
    on_cpu = jax.default_backend() == "cpu"
    side = side or (2048 if on_cpu else 8192)
    matrix = jnp.full((side, side), 1 / side, dtype)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    times = timeit.repeat(
        lambda: product(matrix, matrix).block_until_ready(), repeat=3, number=1
    )
    return 2 * side**3 / min(times) * (1 if on_cpu else devices)


def readable_step(case: Case) -> tuple[Any, tuple[Any, ...]]:
    """A case's jitted train step, not yet compiled, and its arguments, the state first.

    The step uses shard_map, whose program is readable and whose stages are distinct;
    pmap's program is the same.
    """
    ours = CnnJax(case, "shard_map")
    dispatch = next(ours.dispatches)
    count = ours.program.devices.replicate(np.int32(dispatch.count))
    data = ((ours.program.resident, count), dispatch.items)
    return ours.program.train_steps, (ours.state, *data)
