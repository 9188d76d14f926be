"""The two uses of a 1x1 convolution, measured.

    python -m experiments.one_by_one

Lin, Chen and Yan (2013), "Network in network". Before a large convolution, a 1x1
convolution with fewer maps saves most of its multiply-accumulates (MACs): the
tables compare both, counted in the traced program, and time them side by side.
With as many maps as it gets, a 1x1 convolution and ReLU adds a non-linearity at
each pixel: a net that must tell where exactly one of two channels is on (an
exclusive or, which no linear map computes) learns it with, and not without.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from rich import box
from rich.console import Console
from rich.table import Table

from cnn_jax.models.layers import Conv, Images, Maps, relu
from cnn_jax.models.summary import Summary, summarize


class Spatial(nn.Module):
    """A k x k convolution, after a shrinking 1x1 convolution if ``shrink`` > 0.

    Attributes:
      kernel: k, odd.
      width: maps that are put out.
      shrink: maps between; 0 for none.
    """

    kernel: int
    width: int
    shrink: int = 0

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Maps:
        """From (n, h, w, c) to (n, h, w, width)."""
        if self.shrink:
            x = relu(Conv(self.shrink, (1, 1), padding=0, name="shrink")(x))
        size, padding = (self.kernel, self.kernel), self.kernel // 2
        return relu(Conv(self.width, size, padding=padding, name="spatial")(x))


class PixelClassifier(nn.Module):
    """A 3x3 convolution and a class for each pixel, linear or not.

    Attributes:
      width: maps of the convolution.
      one_by_one: between them, a 1x1 convolution of as many maps and ReLU.
    """

    width: int
    one_by_one: bool

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Maps:
        """Logit of each pixel, (n, h, w, 1)."""
        x = Conv(self.width, (3, 3), padding=1, name="spatial")(x)
        if self.one_by_one:
            x = relu(Conv(self.width, (1, 1), padding=0, name="one_by_one")(x))
        return Conv(1, (1, 1), padding=0, name="classes")(x)


class Saving(NamedTuple):
    """A convolution with and without a shrinking 1x1 convolution before it."""

    kernel: int
    direct: Summary
    shrunk: Summary
    time_ratio: float


def measure_saving(
    kernel: int, size: int, channels: int, shrink: int, width: int, batch: int
) -> Saving:
    """Count and time both.

    Args:
      kernel: of the spatial convolution.
      size: height and width of the map.
      channels: of the input.
      shrink: maps of the 1x1 convolution.
      width: maps of the output.
      batch: images a timed call.

    Returns:
      Both summaries, and the time of the direct one divided by the other's.
    """
    shape = (size, size, channels)
    nets = [Spatial(kernel, width), Spatial(kernel, width, shrink)]
    images = jax.random.normal(jax.random.key(0), (batch, *shape))
    calls = []
    for net in nets:
        variables = jax.jit(lambda key, net=net: net.init(key, images, train=False))(
            jax.random.key(1)
        )
        call = jax.jit(lambda v, x, net=net: net.apply(v, x, train=False))
        calls.append(lambda call=call, v=variables: call(v, images))
    direct, shrunk = (summarize(net, shape) for net in nets)
    return Saving(kernel, direct, shrunk, time_ratio(*calls))


def time_ratio(
    slow: Callable[[], Any], fast: Callable[[], Any], repeats: int = 15
) -> float:
    """Median of the ratios of two calls' times, measured in turn."""
    jax.block_until_ready((slow(), fast()))
    ratios = []
    for _ in range(repeats):
        times = []
        for call in (slow, fast):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def learn_exclusive_or(one_by_one: bool, seed: int = 0, steps: int = 300) -> float:
    """Train a `PixelClassifier` on fresh noise; its error on more of it.

    Args:
      one_by_one: with the added 1x1 convolution and ReLU.
      seed: of the weights and of the noise.
      steps: of Adam, 8 images of 16 x 16 each.

    Returns:
      Share of wrong pixels; guessing makes 0.5.
    """
    net, optimizer = PixelClassifier(16, one_by_one), optax.adam(1e-2)
    start, order, last = jax.random.split(jax.random.key(seed), 3)

    def draw(key, count):
        on = jax.random.bernoulli(key, shape=(count, 16, 16, 2))
        return 2.0 * on - 1, (on[..., :1] ^ on[..., 1:]).astype(jnp.float32)

    def loss(params, key):
        images, target = draw(key, 8)
        logits = net.apply({"params": params}, images, train=True)
        return optax.sigmoid_binary_cross_entropy(logits, target).mean()

    @jax.jit
    def step(carry, number):
        params, state = carry
        gradient = jax.grad(loss)(params, jax.random.fold_in(order, number))
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    init = jax.jit(net.init, static_argnames="train")
    params = init(start, draw(last, 1)[0], train=False)["params"]
    carry = params, optimizer.init(params)
    for number in range(steps):
        carry = step(carry, number)
    images, target = draw(last, 64)
    logits = jax.jit(net.apply, static_argnames="train")(
        {"params": carry[0]}, images, train=False
    )
    return float(((logits > 0) != (target > 0.5)).mean())


def report(savings: Sequence[Saving], shrink: int, console: Console) -> None:
    """Print the comparison."""
    size = " x ".join(map(str, savings[0].direct.input))
    table = Table(title=f"shrink channels first, input {size}", box=box.SIMPLE_HEAD)
    table.add_column("layers")
    for column in ("parameters", "MACs", "MACs saved", "times faster"):
        table.add_column(column, justify="right")
    for found in savings:
        k = f"{found.kernel}x{found.kernel}"
        for label, net, rest in (
            (k, found.direct, ("", "")),
            (
                f"1x1 to {shrink}, {k}",
                found.shrunk,
                (
                    f"{1 - found.shrunk.macs / found.direct.macs:.1%}",
                    f"{found.time_ratio:.1f}",
                ),
            ),
        ):
            table.add_row(label, f"{net.parameters:,}", f"{net.macs:,}", *rest)
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=28, help="height and width")
    parser.add_argument("--channels", type=int, default=192, help="of the input")
    parser.add_argument("--shrink", type=int, default=16, help="maps of the 1x1")
    parser.add_argument("--width", type=int, default=32, help="maps of the output")
    parser.add_argument("--batch", type=int, default=16, help="images a timed call")
    words = parser.parse_args(argv)
    if min(vars(words).values()) < 1:
        parser.error("every size must be positive")
    console = Console() if sys.stdout.isatty() else Console(width=120)
    savings = [measure_saving(kernel, **vars(words)) for kernel in (5, 3)]
    report(savings, words.shrink, console)

    table = Table(title="keep channels, add a non-linearity", box=box.SIMPLE_HEAD)
    table.add_column("net for 'exactly one of two channels is on'")
    for column in ("parameters", "MACs", "wrong pixels"):
        table.add_column(column, justify="right")
    for label, added in (
        ("3x3 to 16, 1x1 to a class", False),
        ("3x3 to 16, 1x1 to 16 + ReLU, 1x1 to a class", True),
    ):
        found = summarize(PixelClassifier(16, added), (16, 16, 2))
        error = learn_exclusive_or(added)
        table.add_row(label, f"{found.parameters:,}", f"{found.macs:,}", f"{error:.1%}")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
