"""The networks as one writes them in flax: linen's own layers, and nothing else.

Layers have the names that they have in `cnn_jax.models`, so that variables can be
handed from one to the other.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cnn_jax.models import lenet, resnet, vgg
from experiments.benchmark.peers import NoPeer


def squash(x):
    """The scaled hyperbolic tangent of LeCun et al. (1998), appendix A."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """Sum of each 2x2 window times a coefficient, plus a bias: one pair a map."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        """From (n, 2h, 2w, c) to (n, h, w, c)."""
        shape = (x.shape[-1],)
        coefficient = self.param("coefficient", nn.initializers.constant(0.3), shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        x = 4 * nn.avg_pool(x, (2, 2), strides=(2, 2))
        scale, shift = (
            v.astype(self.dtype)[None, None, None] for v in (coefficient, bias)
        )
        return x * scale + shift


class TableConv(nn.Module):
    """C3: the 5x5 kernels that the paper's table I has, laid out in a dense one."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        """From (n, h, w, 6) to (n, h - 4, w - 4, 16)."""
        sources, maps = lenet.c3_connections().nonzero()
        init = nn.initializers.normal(0.1)
        kernel = self.param("kernel", init, (5, 5, len(maps)))
        bias = self.param("bias", nn.initializers.zeros, (16,))
        dense = jnp.zeros((5, 5, 6, 16)).at[:, :, sources, maps].set(kernel)
        conv = nn.Conv(16, (5, 5), padding="VALID", dtype=self.dtype, parent=None)
        return conv.apply({"params": {"kernel": dense, "bias": bias}}, x)


class LeNet5(nn.Module):
    """LeNet-5 of 1998 or of today; the fields are those of this package's."""

    num_classes: int
    activation: str
    subsampling: str
    c3: str
    output: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        """Logits, or negated squared distances to the codes."""
        paper = self.activation == "tanh"
        act = squash if paper else nn.relu
        conv = partial(nn.Conv, kernel_size=(5, 5), padding="VALID", dtype=self.dtype)

        def subsample(x, name):
            if self.subsampling == "max":
                return nn.max_pool(x, (2, 2), strides=(2, 2))
            x = Subsampling(dtype=self.dtype, name=name)(x)
            return squash(x) if paper else x

        x = subsample(act(conv(6, name="C1")(x)), "S2")
        if self.c3 == "table":
            x = TableConv(dtype=self.dtype, name="C3")(x)
        else:
            x = conv(16, name="C3")(x)
        x = subsample(act(x), "S4")
        x = act(conv(120, name="C5")(x)).reshape(x.shape[0], -1)
        x = act(nn.Dense(84, dtype=self.dtype, name="F6")(x)).astype(jnp.float32)
        if self.output == "linear":
            return nn.Dense(self.num_classes, name="output")(x)
        codes = jnp.asarray(lenet.digit_codes()[: self.num_classes], jnp.float32)
        return -jnp.square(x[:, None] - codes[None]).sum(-1)


class VGG(nn.Module):
    """Configurations A to E; the fields are those of this package's."""

    num_classes: int
    configuration: str
    batch_norm: bool
    widths: Sequence[int]
    hidden: Sequence[int]
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        """Logits of images (n, h, w, c)."""
        stages = zip(vgg.STAGES[self.configuration], self.widths, strict=True)
        for stage, (kernels, width) in enumerate(stages, start=1):
            for index, kernel in enumerate(kernels, start=1):
                x = nn.Conv(
                    width,
                    (kernel, kernel),
                    use_bias=not self.batch_norm,
                    dtype=self.dtype,
                    name=f"conv{stage}_{index}",
                )(x)
                if self.batch_norm:
                    x = norm(self.dtype, train, f"bn{stage}_{index}")(x)
                x = nn.relu(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        for index, units in enumerate(self.hidden, start=6):
            x = nn.relu(nn.Dense(units, dtype=self.dtype, name=f"fc{index}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        name = f"fc{6 + len(self.hidden)}"
        return nn.Dense(self.num_classes, name=name)(x.astype(jnp.float32))


def norm(dtype: Any, train: bool, name: str) -> nn.BatchNorm:
    """linen's batch norm with the constants of this package's."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        name=name,
    )


class Block(nn.Module):
    """A residual block, basic or bottleneck, or a plain one."""

    width: int
    stride: int
    bottleneck: bool
    v1: bool
    shortcut: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        """From (n, h, w, c) to (n, h / stride, w / stride, channels)."""
        channels = self.width * (4 if self.bottleneck else 1)
        plan = [(self.width, 3, self.stride), (channels, 3, 1)]
        if self.bottleneck:
            first, second = (self.stride, 1) if self.v1 else (1, self.stride)
            plan = [(self.width, 1, first), (self.width, 3, second), (channels, 1, 1)]
        z = x
        for index, (width, kernel, stride) in enumerate(plan, start=1):
            z = convolution(width, kernel, stride, self.dtype, f"conv{index}")(z)
            z = norm(self.dtype, train, f"bn{index}")(z)
            if index < len(plan):
                z = nn.relu(z)
        if self.shortcut == "none":
            return nn.relu(z)
        changes = self.stride > 1 or x.shape[-1] != channels
        if self.shortcut == "C" or (self.shortcut == "B" and changes):
            x = convolution(channels, 1, self.stride, self.dtype, "shortcut_conv")(x)
            x = norm(self.dtype, train, "shortcut_bn")(x)
        elif changes:
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))
        return nn.relu(z + x)


def convolution(width: int, kernel: int, stride: int, dtype: Any, name: str) -> nn.Conv:
    """A convolution before a batch norm, padded as in torch."""
    return nn.Conv(
        width,
        (kernel, kernel),
        strides=stride,
        padding=kernel // 2,
        use_bias=False,
        dtype=dtype,
        name=name,
    )


class ResNet(nn.Module):
    """Plain and residual nets; ``sizes`` are blocks of each stage."""

    num_classes: int
    sizes: Sequence[int]
    widths: Sequence[int]
    bottleneck: bool
    v1: bool
    shortcut: str
    large: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        """Logits of images (n, h, w, c)."""
        kernel, stride = (7, 2) if self.large else (3, 1)
        x = convolution(self.widths[0], kernel, stride, self.dtype, "stem_conv")(x)
        x = nn.relu(norm(self.dtype, train, "stem_bn")(x))
        if self.large:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        stages = zip(self.sizes, self.widths, strict=True)
        for stage, (size, width) in enumerate(stages, start=1):
            for index in range(1, size + 1):
                x = Block(
                    width,
                    stride=2 if index == 1 and stage > 1 else 1,
                    bottleneck=self.bottleneck,
                    v1=self.v1,
                    shortcut=self.shortcut,
                    dtype=self.dtype,
                    name=f"stage{stage}_block{index}",
                )(x, train)
        x = x.astype(jnp.float32).mean((1, 2))
        return nn.Dense(self.num_classes, name="head")(x)


def twin_of(module: nn.Module) -> nn.Module:
    """The same network in plain flax: same layers, same parameters.

    Args:
      module: a network of this package.

    Returns:
      A linen module, called with (images, train).

    Raises:
      NoPeer: nobody wrote that network in plain flax here.
    """
    kind, classes = type(module), module.num_classes
    dtype = jnp.dtype(module.dtype)
    if kind is lenet.LeNet5 and not module.line:
        fields = (module.activation, module.subsampling, module.c3, module.output)
        return LeNet5(classes, *fields, dtype=dtype)
    if kind is vgg.VGG:
        return VGG(
            classes,
            module.configuration,
            module.batch_norm,
            module.widths,
            module.hidden,
            module.dropout,
            dtype,
        )
    if (
        kind is resnet.ResNet
        and module.block_name() in resnet.BLOCKS
        and module.skipped_layers() == resnet.BLOCKS[module.block_name()].default_layers
        and not module.preactivation
        and not module.stochastic_depth
    ):
        return ResNet(
            classes,
            module.blocks_per_stage(),
            module.stage_widths(),
            bottleneck=module.block_name() == "bottleneck",
            v1=module.bottleneck_stride == "1x1",
            shortcut=module.shortcut,
            large=module.layout == "imagenet",
            dtype=dtype,
        )
    raise NoPeer(f"no plain flax version of this {kind.__name__}")
