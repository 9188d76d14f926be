"""The blocks of residual nets and their plain counterparts.

He, Zhang, Ren and Sun (2015), "Deep residual learning for image recognition",
sections 3.2 and 3.3, figures 2 and 5, and (2016), "Identity mappings in deep
residual networks", figure 4 (pre-activation):

    block        branch                                   layers skipped
    basic        3x3, 3x3                                 2
    bottleneck   1x1 shrinks, 3x3, 1x1 widens by four     3

A user-defined block is a subclass of `Block`, or of one of these, in any module; a
net selects it with ``block='package.module:Class'``.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from cnn_jax.models.layers import BatchNorm, Conv, FeatureMaps, Images, ModuleDef, relu

Shortcut = Literal["none", "A", "B", "C"]


def option_a(x: Images, channels: int, stride: int) -> FeatureMaps:
    """The parameter-free shortcut: subsample by ``stride``, append zero channels.

    He et al. (2015), section 3.3, option A: the fixed matrix that keeps the
    input's channels and appends ``channels - x.shape[-1]`` channels of zeros.
    """
    x = x[:, ::stride, ::stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))


class Block(nn.Module):
    """A residual block: a branch of weight layers beside a shortcut.

    ``a[l+n] = g(z[l+n] + shortcut(a[l]))`` (He et al. 2015, section 3.2); with
    ``preactivation``, ``a[l+n] = branch(g(BN(a[l]))) + shortcut(a[l])`` (2016).
    To define a block, subclass this, implement `branch`, and name the class in a
    config: ``config.model.block = 'my_package.my_module:MyBlock'``.

    Attributes:
      width: channels of the branch's 3x3 layers.
      stride: spatial subsampling factor of this block.
      shortcut: 'none' (plain net); where shapes differ, 'A' (fixed matrix) or
        'B' (1x1 convolution + BN); 'C' uses that convolution in every block.
      num_layers: weight layers that the shortcut skips.
      preactivation: BN and ReLU before each convolution (v2).
      activated: with ``preactivation``, the input is the stem's, which is normalised
        and activated already (2016, appendix).
      bottleneck_stride: the layer of a bottleneck that has the stride, the
        first '1x1' (v1, the paper) or the '3x3' (v1.5, torchvision).
      zero_scale: initialise the branch's last BN scale to 0; not for plain nets,
        whose output it would make constant. With ``preactivation`` the blocks here
        end with a convolution and ignore it.
      death_rate: probability that a training step drops the branch, for the whole
        batch (Huang et al. 2016, "Deep networks with stochastic depth", section 3).
      conv: module of every convolution.
      norm: module of every normalisation.
      dtype: type of the computation.
    """

    width: int
    stride: int = 1
    shortcut: Shortcut = "A"
    num_layers: int = 2
    preactivation: bool = False
    activated: bool = False
    bottleneck_stride: Literal["1x1", "3x3"] = "1x1"
    zero_scale: bool = False
    death_rate: float | Array = 0.0
    conv: ModuleDef = Conv
    norm: ModuleDef = BatchNorm
    dtype: str = "float32"

    expansion: ClassVar[int] = 1
    default_layers: ClassVar[int] = 2

    @property
    def channels(self) -> int:
        """Output channels of the block."""
        return self.width * self.expansion

    def branch(self, x: Images, train: bool) -> FeatureMaps:
        """The weight layers, whose output is added to the shortcut."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: Images, train: bool) -> FeatureMaps:
        """From (n, h, w, c) to (n, ceil(h / stride), ceil(w / stride), channels)."""
        same_shape = self.stride == 1 and x.shape[-1] == self.channels
        # Where the shape changes, v2 applies one activation before both paths (He et
        # al. 2016, code of section 5); an identity shortcut takes the raw input.
        bare = self.preactivation and not self.activated
        entry = self.activate(x, train, "bn_pre") if bare else x
        z = self.branch(entry, train)
        if not isinstance(self.death_rate, float) or self.death_rate:
            z = self.survive(z, train)
        if self.shortcut != "none":
            source = x if same_shape and self.shortcut != "C" else entry
            z = z + self.shortcut_of(source, same_shape, train)
        return z if self.preactivation else relu(z)

    def survive(self, z: FeatureMaps, train: bool) -> FeatureMaps:
        """Drop the branch at random in training; take the expectation in evaluation.

        Huang et al. (2016), equations 2 and 5. A dropped branch is still computed,
        because a conditional would make the program slower. Its BN therefore keeps
        averaging, unlike the paper's.
        """
        survival = 1 - self.death_rate
        if train:
            alive = jax.random.bernoulli(self.make_rng("dropout"), survival)
            return jnp.where(alive, z, jnp.zeros_like(z))
        return (survival * z).astype(z.dtype)  # in a loop the rate is a float32 array

    def shortcut_of(self, x: Images, same_shape: bool, train: bool) -> FeatureMaps:
        """The shortcut path: the input itself, or its projection by A, B or C."""
        if same_shape and self.shortcut != "C":
            return x
        if self.shortcut == "A":
            return option_a(x, self.channels, self.stride)
        x = self.conv(
            self.channels,
            (1, 1),
            strides=self.stride,
            padding=0,
            use_bias=False,
            dtype=self.dtype,
            name="shortcut_conv",
        )(x)
        if self.preactivation:
            return x
        return self.norm(dtype=self.dtype, name="shortcut_bn")(x, train)

    def convolve(
        self, x: Images, index: int, width: int, kernel: int, stride: int
    ) -> FeatureMaps:
        """The ``index``-th convolution of the branch, padded to preserve the size."""
        return self.conv(
            width,
            (kernel, kernel),
            strides=stride,
            padding=kernel // 2,
            use_bias=False,  # the BN that follows has one
            dtype=self.dtype,
            name=f"conv{index}",
        )(x)

    def normalize(self, x: Images, train: bool, name: str, last: bool) -> FeatureMaps:
        """Normalise; ``zero_scale`` applies to the ``last`` layer of a branch."""
        fields: dict[str, Any] = {"dtype": self.dtype, "name": name}
        if last and self.zero_scale:
            fields["scale_init"] = nn.initializers.zeros
        return self.norm(**fields)(x, train)

    def activate(self, x: Images, train: bool, name: str) -> FeatureMaps:
        """BN, then ReLU: the entry of a pre-activation layer."""
        return relu(self.normalize(x, train, name, last=False))

    def layers(self, x: Images, plan: Sequence[tuple[int, int, int]], train: bool):
        """Convolutions of (width, kernel, stride) with BN and ReLU in their order.

        v1: conv-BN-ReLU ... conv-BN. v2, whose input is already activated:
        conv-BN-ReLU ... conv.
        """
        for index, (width, kernel, stride) in enumerate(plan, start=1):
            x = self.convolve(x, index, width, kernel, stride)
            last = index == len(plan)
            if last and self.preactivation:
                return x
            x = self.normalize(x, train, f"bn{index}", last)
            if not last:
                x = relu(x)
        return x


class BasicBlock(Block):
    """``num_layers`` 3x3 layers (two in the paper), the first with the stride."""

    def branch(self, x: Images, train: bool) -> FeatureMaps:
        """3x3 / stride, then 3x3, all of the same width."""
        rest = [(self.width, 3, 1)] * (self.num_layers - 1)
        return self.layers(x, [(self.width, 3, self.stride), *rest], train)


class BottleneckBlock(Block):
    """1x1 to ``width``, 3x3, 1x1 to 4 ``width`` (section 4.1, figure 5 right)."""

    expansion: ClassVar[int] = 4
    default_layers: ClassVar[int] = 3

    def branch(self, x: Images, train: bool) -> FeatureMaps:
        """A 1x1 layer that shrinks, the 3x3 layers, and a 1x1 layer that expands."""
        first, middle = (
            (self.stride, 1) if self.bottleneck_stride == "1x1" else (1, self.stride)
        )
        rest = [(self.width, 3, 1)] * (self.num_layers - 3)
        plan = [
            (self.width, 1, first),
            (self.width, 3, middle),
            *rest,
            (self.channels, 1, 1),
        ]
        return self.layers(x, plan, train)


BLOCKS = {"basic": BasicBlock, "bottleneck": BottleneckBlock}
