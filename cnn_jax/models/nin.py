"""Network in Network: small perceptrons slide over the image, then an average.

Lin, Chen and Yan (2013), "Network in network". An mlpconv layer is a convolution
and two 1x1 convolutions, each with ReLU. The last layer has one feature map per
class, whose global average is the class score; there is no dense layer. The paper
gives no widths; these come from the authors' published CIFAR-10 and ImageNet nets.

    mlpconv   CIFAR                  ImageNet
    1         5x5 192, 160, 96       11x11/4 96, 96, 96
    2         5x5 192, 192, 192      5x5 256, 256, 256
    3         3x3 192, 192, classes  3x3 384, 384, 384
    4                                3x3 1024, 1024, classes
    input     32 x 32 x 3            224 x 224 x 3
    params    966,986 (10 classes)   7,595,176 (1000 classes)

A 3x3/2 max-pool follows each mlpconv layer but the last. Dropout follows every
max-pool on CIFAR, and only the last max-pool on ImageNet.
"""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from cnn_jax import names
from cnn_jax.models.layers import (
    BatchNorm,
    Conv,
    FeatureMaps,
    Images,
    ModuleDef,
    check_fields,
    check_images,
    global_average_pool,
    relu,
)
from cnn_jax.models.pooling import max_pool

# Per mlpconv layer: (kernel, stride, padding), then the widths of its three
# convolutions. The last width of the last layer is the number of classes.
LAYOUTS = {
    "cifar": (
        ((5, 1, 2), (192, 160, 96)),
        ((5, 1, 2), (192, 192, 192)),
        ((3, 1, 1), (192, 192)),
    ),
    "imagenet": (
        ((11, 4, 0), (96, 96, 96)),
        ((5, 1, 2), (256, 256, 256)),
        ((3, 1, 1), (384, 384, 384)),
        ((3, 1, 1), (1024, 1024)),
    ),
}


def max_pool_covering(x: Images) -> FeatureMaps:
    """3x3/2 max-pooling whose last window may extend past the right and lower edge.

    A side of n becomes ceil((n - 3) / 2) + 1, as in cuda-convnet and Caffe.
    """
    rows, columns = (
        (0, (size - 3) % 2 if size > 2 else 3 - size) for size in x.shape[1:3]
    )
    return max_pool(x, 3, 2, (rows, columns))


class MLPConv(nn.Module):
    """A convolution and the 1x1 convolutions of its perceptron, each with ReLU.

    Attributes:
      widths: feature maps of each layer.
      kernel: kernel size of the first convolution.
      stride: stride of the first convolution.
      padding: padding of the first convolution.
      batch_norm: batch norm before each ReLU, in place of the bias.
      conv: module of every convolution.
      norm: module of every normalisation.
      dtype: type of the computation.
    """

    widths: Sequence[int]
    kernel: int
    stride: int = 1
    padding: int = 0
    batch_norm: bool = False
    conv: ModuleDef = Conv
    norm: ModuleDef = BatchNorm
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Images, train: bool) -> FeatureMaps:
        """From (n, h, w, c) to (n, rows, columns, widths[-1])."""
        for index, width in enumerate(self.widths):
            first = index == 0
            kernel = self.kernel if first else 1
            x = self.conv(
                width,
                (kernel, kernel),
                strides=self.stride if first else 1,
                padding=self.padding if first else 0,
                use_bias=not self.batch_norm,
                dtype=self.dtype,
                name="conv" if first else f"mlp{index}",
            )(x)
            if self.batch_norm:
                name = f"bn{index}"
                x = self.norm(dtype=self.dtype, name=name)(x, train)
            x = relu(x)
        return x


class NIN(nn.Module):
    """Network in Network, by default for CIFAR.

    Attributes:
      num_classes: size of the output.
      layout: 'cifar' or 'imagenet'.
      width: factor on all hidden widths.
      batch_norm: batch norm before each ReLU, in place of the bias (not in the
        paper, which predates it).
      dropout: probability of dropping a unit.
      conv: module of every convolution.
      norm: module of every normalisation.
      dtype: type of the computation ('float32', 'bfloat16'); parameters and
        logits are float32.

    Raises:
      ConfigError: on construction, an invalid field.
    """

    num_classes: int
    layout: Literal["cifar", "imagenet"] = "cifar"
    width: float = 1.0
    batch_norm: bool = False
    dropout: float = 0.5
    conv: ModuleDef = Conv
    norm: ModuleDef = BatchNorm
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        super().__post_init__()
        check_fields(self)
        if not self.width > 0:
            raise names.ConfigError(f"NIN: width must be positive, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise names.ConfigError(
                f"NIN: dropout must be in [0, 1), got {self.dropout}"
            )

    @nn.compact
    def __call__(
        self, x: Images, train: bool
    ) -> Float[Array, "batch {self.num_classes}"]:
        """Logits of a batch of images of any size (ImageNet: at least 11 x 11).

        Args:
          x: normalised images (n, height, width, channels).
          train: apply dropout (needs the random stream 'dropout') and use batch
            statistics, if any, instead of running ones.

        Returns:
          Logits (n, num_classes), float32, never negative (the last layer has a
          ReLU, like every layer of equation 2).

        Raises:
          ConfigError: images too small, or with another number of channels.
        """
        layout = LAYOUTS[self.layout]
        (kernel, _, padding), _ = layout[0]
        check_images(self, x, first="mlpconv1/conv", least=kernel - 2 * padding)
        x = x.astype(self.dtype)
        for index, ((kernel, stride, padding), widths) in enumerate(layout, start=1):
            last = index == len(layout)
            scaled = [max(1, round(self.width * width)) for width in widths]
            x = MLPConv(
                [*scaled, self.num_classes] if last else scaled,
                kernel=kernel,
                stride=stride,
                padding=padding,
                batch_norm=self.batch_norm,
                conv=self.conv,
                norm=self.norm,
                dtype=self.dtype,
                name=f"mlpconv{index}",
            )(x, train)
            if not last:
                x = max_pool_covering(x)
            if index == len(layout) - 1 or (self.layout == "cifar" and not last):
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return global_average_pool(x)
