"""AlexNet: two towers as published, one tower, or torchvision's layout.

Krizhevsky, Sutskever and Hinton (2012), "ImageNet classification with deep
convolutional neural networks", section 3, and Krizhevsky (2014), "One weird
trick for parallelizing convolutional neural networks", whose widths are
torchvision's but for conv4 (384).

    layer   kernel    published     torchvision   then
    conv1   11x11/4   55 x 55 x 96  55 x 55 x 64  LRN, max-pool 3x3/2
    conv2    5x5      27 x 27 x 256           192  LRN, max-pool 3x3/2
    conv3    3x3      13 x 13 x 384           384
    conv4    3x3      13 x 13 x 384           256
    conv5    3x3      13 x 13 x 256           256  max-pool 3x3/2, 6 x 6
    fc6               4096                         dropout
    fc7               4096                         dropout
    fc8               1000

ReLU follows every layer but the last. With two towers, conv2, conv4 and conv5 have
weights only for the kernel maps of their own tower, which gives 60,965,224 parameters.
LRN runs over all maps of a layer, as the paper's formula does, so at the border of the
towers it takes in two maps of the other; the paper's GPUs do not communicate there.
One tower has 62,378,344 parameters; torchvision's layout (one tower, no LRN) has
61,100,840. The paper states images of 224 x 224, but without padding its maps of
55 x 55 require 227.
"""

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax import names
from cnn_jax.models.layers import (
    Conv,
    Images,
    ModuleDef,
    check_fields,
    check_images,
    he_normal,
    relu,
)
from cnn_jax.models.pooling import max_pool


def local_response_norm(
    x: Images, k: float = 2.0, n: int = 5, alpha: float = 1e-4, beta: float = 0.75
) -> Images:
    """Divide each kernel map by the energy of its neighbours (section 3.3).

    ``b[i] = a[i] / (k + alpha * sum_j a[j]^2)^beta`` over the ``n`` maps j from
    i - n/2 to i + n/2 that exist. (Caffe and torch divide ``alpha`` by ``n``.)

    Args:
      x: activations, channels last.
      k: constant that keeps the denominator positive.
      n: number of neighbouring maps, including the map itself.
      alpha: weight of their energy.
      beta: exponent.

    Returns:
      Array with the shape and type of ``x``; the arithmetic is float32.
    """
    wide = x.astype(jnp.float32)
    energy = jax.lax.reduce_window(
        jnp.square(wide),
        0.0,
        jax.lax.add,
        window_dimensions=(1, 1, 1, n),
        window_strides=(1, 1, 1, 1),
        padding=((0, 0), (0, 0), (0, 0), (n // 2, (n - 1) // 2)),
    )
    # exp(log): XLA's power and its derivative are slow on a CPU.
    scale = jnp.exp(-beta * jnp.log(k + alpha * energy))
    return (wide * scale).astype(x.dtype)


class AlexNet(nn.Module):
    """AlexNet, by default the two-tower net of the paper.

    Attributes:
      num_classes: size of the output.
      towers: 2 (conv2, conv4 and conv5 grouped, as on two GPUs) or 1.
      widths: kernels of the five convolutions.
      hidden: units of the dense layers before the output.
      image_size: height and width of the images.
      stem: kernel, stride and padding of conv1; (5, 1, 2) suits 32 x 32 images.
      lrn: local response normalisation after conv1 and conv2.
      dropout: probability of dropping a unit.
      dropout_at: 'output' of the hidden dense layers (paper) or their 'input'
        (torchvision).
      initializer: 'paper' draws weights from N(0, 0.01^2) and sets the biases of conv2,
        conv4, conv5 and the hidden dense layers to 1 (section 5); 'he' scales by
        fan-in and sets biases to 0, as narrow nets need.
      conv: module of every convolution.
      dtype: type of the computation ('float32', 'bfloat16'); parameters and
        logits are float32.

    Raises:
      ConfigError: on construction, an invalid field.
    """

    num_classes: int
    towers: Literal[1, 2] = 2
    widths: Sequence[int] = (96, 256, 384, 384, 256)
    hidden: Sequence[int] = (4096, 4096)
    image_size: int = 227
    stem: Sequence[int] = (11, 4, 0)
    lrn: bool = True
    dropout: float = 0.5
    dropout_at: Literal["output", "input"] = "output"
    initializer: Literal["paper", "he"] = "paper"
    conv: ModuleDef = Conv
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        super().__post_init__()
        check_fields(self)
        if len(self.widths) != 5 or any(
            width < 1 or width % self.towers for width in self.widths
        ):
            raise names.ConfigError(
                f"AlexNet: widths must be 5 positive numbers divisible by the "
                f"{self.towers} towers, got {tuple(self.widths)}"
            )
        if any(units < 1 for units in self.hidden):
            raise names.ConfigError(
                f"AlexNet: hidden must be positive, got {tuple(self.hidden)}"
            )
        if len(self.stem) != 3 or min(self.stem[:2]) < 1 or self.stem[2] < 0:
            raise names.ConfigError(
                f"AlexNet: stem must be (kernel, stride, padding), "
                f"got {tuple(self.stem)}"
            )
        if not 0 <= self.dropout < 1:
            raise names.ConfigError(
                f"AlexNet: dropout must be in [0, 1), got {self.dropout}"
            )
        kernel, stride, padding = self.stem
        # Three poolings of 3x3/2 reduce 15 pixels to one.
        least = 14 * stride + kernel - 2 * padding
        if self.image_size < least:
            raise names.ConfigError(
                f"AlexNet: image_size {self.image_size} is too small for the stem "
                f"{tuple(self.stem)} and three max-pools; the least is {least}"
            )

    @nn.compact
    def __call__(
        self, x: Images, train: bool
    ) -> Float[Array, "batch {self.num_classes}"]:
        """Logits of a batch of images.

        Args:
          x: normalised images (n, image_size, image_size, channels).
          train: apply dropout; needs the random stream 'dropout'.

        Returns:
          Logits (n, num_classes), float32.

        Raises:
          ConfigError: images of another size or number of channels.
        """
        check_images(self, x, first="conv1", size=self.image_size)
        x = x.astype(self.dtype)
        kernel, stride, padding = self.stem
        for index, width in enumerate(self.widths, start=1):
            k, s, p = {1: (kernel, stride, padding), 2: (5, 1, 2)}.get(index, (3, 1, 1))
            split = index in (2, 4, 5)
            x = self.conv(
                width,
                (k, k),
                strides=s,
                padding=p,
                feature_group_count=self.towers if split else 1,
                name=f"conv{index}",
                **self.initializers(ones=split),
                dtype=self.dtype,
            )(x)
            x = relu(x)
            if self.lrn and index < 3:
                x = local_response_norm(x)
            if index in (1, 2, 5):
                x = max_pool(x, 3, 2)
        x = x.reshape(x.shape[0], -1)
        for index, units in enumerate(self.hidden, start=6):
            dense = nn.Dense(
                units,
                name=f"fc{index}",
                **self.initializers(ones=True),
                dtype=self.dtype,
            )
            drop = nn.Dropout(self.dropout, deterministic=not train)
            if self.dropout_at == "input":
                x = relu(dense(drop(x)))
            else:
                x = drop(relu(dense(x)))
        return nn.Dense(
            self.num_classes,
            name=f"fc{6 + len(self.hidden)}",
            **self.initializers(ones=False),
        )(x.astype(jnp.float32))

    def initializers(self, ones: bool) -> dict[str, Any]:
        """Initialisers of a layer's weights and its bias (``ones``, or zeros)."""
        if self.initializer == "he":
            return {"kernel_init": he_normal, "bias_init": nn.initializers.zeros}
        return {
            "kernel_init": nn.initializers.normal(0.01),
            "bias_init": nn.initializers.ones if ones else nn.initializers.zeros,
        }
