"""1x1 convolutions: what they save and what they add.

Lin, Chen and Yan (2013), "Network in network". A 1x1 convolution with fewer channels
before a large convolution saves most of its multiply-accumulates (MACs). Both variants
are counted in the traced program and timed side by side. A 1x1 convolution followed by
ReLU is a non-linear function across the channels at each pixel; without ReLU it is
linear, and adds nothing to the convolution before it. A linear net of a 3x3 convolution
and a classifier cannot detect where exactly one of two channels is on (an exclusive or,
which no linear map computes). With a 1x1 convolution and ReLU between them, it learns
this. The comparison shows what the non-linearity adds, which any ReLU between the two
would add. Neither measurement needs a trained net.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnn_jax.models.layers import Conv, FeatureMaps, Images, relu
from cnn_jax.models.summary import Summary, summarize


class Spatial(nn.Module):
    """A k x k convolution, after a shrinking 1x1 convolution if ``shrink`` > 0.

    Attributes:
      kernel: k, odd.
      width: output channels.
      shrink: output channels of the 1x1 convolution; 0 for no such convolution.
    """

    kernel: int
    width: int
    shrink: int = 0

    @nn.compact
    def __call__(self, x: Images, train: bool) -> FeatureMaps:
        """From (n, h, w, c) to (n, h, w, width)."""
        if self.shrink:
            x = relu(Conv(self.shrink, (1, 1), padding=0, name="shrink")(x))
        size, padding = (self.kernel, self.kernel), self.kernel // 2
        return relu(Conv(self.width, size, padding=padding, name="spatial")(x))


class PixelClassifier(nn.Module):
    """A 3x3 convolution and a class for each pixel, linear or not.

    Attributes:
      width: channels of the convolution.
      one_by_one: whether a 1x1 convolution of as many channels and ReLU lie between;
        the net is linear without them.
    """

    width: int
    one_by_one: bool

    @nn.compact
    def __call__(self, x: Images, train: bool) -> FeatureMaps:
        """The logit of each pixel, (n, h, w, 1)."""
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
    """Count both variants of a convolution, and time them in turns.

    Args:
      kernel: height and width of the convolution.
      size: height and width of the input.
      channels: channels of the input.
      shrink: output channels of the 1x1 convolution.
      width: channels of the output.
      batch: images in a timed call.
    """
    shape = (size, size, channels)
    nets = [Spatial(kernel, width), Spatial(kernel, width, shrink)]
    images = jax.random.normal(jax.random.key(0), (batch, *shape))
    calls: list[Any] = []
    for net in nets:
        variables = jax.jit(lambda key, net=net: net.init(key, images, train=False))(
            jax.random.key(1)
        )
        call = jax.jit(lambda v, x, net=net: net.apply(v, x, train=False))
        calls.append(lambda call=call, v=variables: call(v, images))
    direct, shrunk = (summarize(net, shape) for net in nets)
    return Saving(kernel, direct, shrunk, time_ratio(calls[0], calls[1]))


def time_ratio(
    slow: Callable[[], Any], fast: Callable[[], Any], repeats: int = 15
) -> float:
    """Median ratio of the times of two alternating calls."""
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
    """Train a `PixelClassifier` on random noise and test it on new noise.

    Args:
      one_by_one: whether to add the 1x1 convolution and ReLU to the linear net.
      seed: random seed of the weights and the noise.
      steps: number of steps of Adam, on 8 images of 16 x 16 each.

    Returns:
      Fraction of misclassified pixels; guessing gives 0.5.
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
