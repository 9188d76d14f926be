"""VGG nets A to E: 3x3 convolutions only, 11 to 19 weight layers.

Simonyan and Zisserman (2014), "Very deep convolutional networks for large-scale
image recognition", table 1. Convolutions per stage, all 3x3 except C's 1x1:

    stage   channels   A    B    C           D    E
    1             64   1    2    2           2    2
    2            128   1    2    2           2    2
    3            256   2    2    2 + 1x1     3    4
    4            512   2    2    2 + 1x1     3    4
    5            512   2    2    2 + 1x1     3    4
    dense layers of 4096, 4096 and 1000 units follow each
    weight layers  11   13   16          16   19
    parameters     132,863,336  133,047,848  133,638,952  138,357,544  143,667,240

A 2x2 max-pool ends each stage. The often-cited 138 million parameters are those of
D, VGG-16.
"""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax import names
from cnn_jax.models.layers import (
    BatchNorm,
    Conv,
    Images,
    ModuleDef,
    check_fields,
    check_images,
    he_normal,
    relu,
)
from cnn_jax.models.pooling import max_pool

# Kernel sizes of each stage's convolutions: table 1 of the paper.
STAGES = {
    "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "B": ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "E": ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}


class VGG(nn.Module):
    """A VGG net, by default D for 224 x 224 images.

    The usual adaptation to CIFAR is ``image_size=32, hidden=(512, 512)`` or
    ``hidden=()``, with ``batch_norm=True``.

    Attributes:
      num_classes: size of the output.
      configuration: a column of the paper's table, 'A' to 'E'.
      batch_norm: batch norm before each convolution's ReLU, in place of the
        convolution's bias.
      widths: channels of the five stages.
      hidden: units of the dense layers before the output.
      image_size: height and width of the images, at least 32.
      dropout: probability of dropping a unit of a hidden dense layer.
      initializer: 'glorot', with which the paper trains without pre-training
        (section 3.1), or 'he', whose variance is 1.2 to 3 times as large (in the
        first layer 22 times).
      conv: module of every convolution.
      norm: module of every normalisation.
      dtype: type of the computation ('float32', 'bfloat16'); parameters, BN and
        logits are float32.

    Raises:
      ConfigError: on construction, an invalid field.
    """

    num_classes: int
    configuration: Literal["A", "B", "C", "D", "E"] = "D"
    batch_norm: bool = False
    widths: Sequence[int] = (64, 128, 256, 512, 512)
    hidden: Sequence[int] = (4096, 4096)
    image_size: int = 224
    dropout: float = 0.5
    initializer: Literal["glorot", "he"] = "glorot"
    conv: ModuleDef = Conv
    norm: ModuleDef = BatchNorm
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        super().__post_init__()
        check_fields(self)
        if len(self.widths) != 5 or min(self.widths) < 1:
            raise names.ConfigError(
                f"VGG: widths must be 5 positive numbers, got {tuple(self.widths)}"
            )
        if any(units < 1 for units in self.hidden):
            raise names.ConfigError(
                f"VGG: hidden must be positive, got {tuple(self.hidden)}"
            )
        if not 0 <= self.dropout < 1:
            raise names.ConfigError(
                f"VGG: dropout must be in [0, 1), got {self.dropout}"
            )
        if self.image_size < 32:
            raise names.ConfigError(
                f"VGG: image_size {self.image_size} is too small for five 2x2 "
                f"max-pools; the least is 32"
            )

    @nn.compact
    def __call__(
        self, x: Images, train: bool
    ) -> Float[Array, "batch {self.num_classes}"]:
        """Logits of a batch of images.

        Args:
          x: normalised images (n, image_size, image_size, channels).
          train: apply dropout (needs the random stream 'dropout') and use batch
            statistics, if any, instead of running ones.

        Returns:
          Logits (n, num_classes), float32.

        Raises:
          ConfigError: images of another size or number of channels.
        """
        check_images(self, x, first="conv1_1", size=self.image_size)
        glorot = nn.initializers.glorot_normal()
        init = he_normal if self.initializer == "he" else glorot
        x = x.astype(self.dtype)
        stages = zip(STAGES[self.configuration], self.widths, strict=True)
        for stage, (kernels, width) in enumerate(stages, start=1):
            for index, kernel in enumerate(kernels, start=1):
                x = self.conv(
                    width,
                    (kernel, kernel),
                    padding=kernel // 2,
                    use_bias=not self.batch_norm,
                    kernel_init=init,
                    dtype=self.dtype,
                    name=f"conv{stage}_{index}",
                )(x)
                if self.batch_norm:
                    x = self.norm(dtype=self.dtype, name=f"bn{stage}_{index}")(x, train)
                x = relu(x)
            x = max_pool(x, 2, 2)
        x = x.reshape(x.shape[0], -1)
        for index, units in enumerate(self.hidden, start=6):
            dense = nn.Dense(
                units, kernel_init=init, dtype=self.dtype, name=f"fc{index}"
            )
            x = nn.Dropout(self.dropout, deterministic=not train)(relu(dense(x)))
        head = nn.Dense(
            self.num_classes, kernel_init=init, name=f"fc{6 + len(self.hidden)}"
        )
        return head(x.astype(jnp.float32))
