"""LeNet-5, as published and in its modern form.

LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to
document recognition", section II.B. For 32 x 32 images of one channel:

    layer   output         parameters   what it does
    C1      28 x 28 x 6           156   5x5 convolution
    S2      14 x 14 x 6            12   sum of 2x2 x coefficient + bias
    C3      10 x 10 x 16        1,516   5x5 convolution, table I of the paper
    S4       5 x  5 x 16           32   as S2
    C5       1 x  1 x 120      48,120   5x5 convolution
    F6                 84      10,164   dense
    output             10               distance to a fixed code of each class
                               60,000

The squashing function 1.7159 tanh(2x / 3) follows every layer from C1 to F6,
including the subsampling layers. The modern net is the same module with
``activation='relu'``, ``subsampling='max'``, ``c3='dense'`` and ``output='linear'``:
61,706 parameters.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax import names
from cnn_jax.models.layers import (
    Conv,
    FeatureMaps,
    Images,
    ModuleDef,
    check_fields,
    check_images,
    he_normal,
    relu,
)
from cnn_jax.models.pooling import max_pool

# Table I: which of S2's 6 maps (rows) each of C3's 16 maps (columns) sees. Only the
# last map sees all six, which forces the maps to extract different features.
C3_TABLE = """
    X . . . X X X . . X X X X . X X
    X X . . . X X X . . X X X X . X
    X X X . . . X X X . . X . X X X
    . X X X . . X X X X . . X . X X
    . . X X X . . X X X X . X X . X
    . . . X X X . . X X X X . X X X
"""

# The target codes for F6: each digit as a 7 x 12 bitmap. Unlike one-of-ten codes,
# they are similar for similar digits (section II.B).
GLYPHS = """
    .......  .......  .......  .......  .......
    ..###..  ...#...  .####..  .####..  ....##.
    .##.##.  ..##...  ##..##.  ##..##.  ...###.
    ##...##  .###...  #....##  .....##  ..####.
    ##...##  ...#...  .....##  .....##  ..#.##.
    ##...##  ...#...  ....##.  ..####.  .##.##.
    ##...##  ...#...  ...##..  .....##  ##..##.
    ##...##  ...#...  ..##...  .....##  #######
    ##...##  ...#...  .##....  ##...##  ....##.
    .##.##.  ...#...  ##....#  ##..##.  ....##.
    ..###..  .#####.  #######  .####..  ....##.
    .......  .......  .......  .......  .......

    .......  .......  .......  .......  .......
    ######.  ...###.  #######  .#####.  ..####.
    ##.....  ..##...  #....##  ##...##  .##..##
    ##.....  .##....  .....##  ##...##  ##...##
    ##.....  ##.....  ....##.  ##...##  ##...##
    #####..  ##.###.  ....##.  .#####.  .######
    ....##.  ###.##.  ...##..  ##...##  ...#.##
    .....##  ##...##  ...##..  ##...##  .....##
    .....##  ##...##  ..##...  ##...##  ....##.
    #...##.  .##.##.  ..##...  ##...##  ...##..
    .####..  ..###..  ..##...  .#####.  .###...
    .......  .......  .......  .......  .......
"""


def c3_connections() -> Float[np.ndarray, "inputs=6 outputs=16"]:
    """`C3_TABLE` as an array of zeros and ones."""
    rows = [line.split() for line in C3_TABLE.strip().splitlines()]
    return np.array([[float(cell == "X") for cell in row] for row in rows])


def digit_codes() -> Float[np.ndarray, "classes=10 units=84"]:
    """`GLYPHS`, one row per digit: ink is +1, paper is -1."""
    blocks = [block.split() for block in GLYPHS.strip().split("\n\n")]
    bitmaps = [block[digit::5] for block in blocks for digit in range(5)]
    return np.array(
        [[1.0 if dot == "#" else -1.0 for dot in "".join(rows)] for rows in bitmaps]
    )


def squash(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """1.7159 tanh(2x / 3), which maps +-1 to +-1 (appendix A)."""
    return 1.7159 * jnp.tanh(2.0 / 3.0 * x)


def uniform_by_fan_in(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32):
    """Uniform in +-2.4 / fan-in (appendix A); all axes but the last count as inputs."""
    bound = 2.4 / np.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class Subsampling(nn.Module):
    """Sum of each 2x2 window, times a coefficient, plus a bias: one pair per map.

    Attributes:
      dtype: type of the computation.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Images) -> FeatureMaps:
        """From (n, 2h, 2w, c) to (n, h, w, c); an odd last row or column is dropped."""

        def initial(key, shape):
            return jax.random.uniform(key, shape, jnp.float32, -2.4 / 4, 2.4 / 4)

        channels = (x.shape[-1],)
        coefficient = self.param("coefficient", initial, channels)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        n, rows, columns, maps = x.shape
        # a last row or column without a neighbour is dropped
        even = x[:, : rows // 2 * 2, : columns // 2 * 2]
        total = even.reshape(n, rows // 2, 2, columns // 2, 2, maps).sum((2, 4))
        shape = (1, 1, 1, *channels)
        scale, shift = coefficient.reshape(shape), bias.reshape(shape)
        return total * scale.astype(self.dtype) + shift.astype(self.dtype)


class TableConv(nn.Module):
    """A 5x5 convolution whose maps see only the inputs listed in a table.

    The parameters are the table's 60 kernels (``kernel``, 5 x 5 x 60) and 16 biases.
    They are placed in a dense kernel that is zero elsewhere, so the program computes
    all 6 x 16 kernels: 240,000 multiply-accumulates in place of the table's 150,000.

    Attributes:
      conv: module of the dense convolution.
      dtype: type of the computation.
    """

    conv: ModuleDef = Conv
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Images) -> FeatureMaps:
        """From (n, h, w, 6) to (n, h - 4, w - 4, 16)."""
        table = c3_connections()
        sources, maps = np.nonzero(table)

        def initial(key, shape):
            bound = 2.4 / (25 * table.sum(axis=0)[None, None, maps])
            return bound * jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)

        kernel = self.param("kernel", initial, (5, 5, len(maps)))
        bias = self.param("bias", nn.initializers.zeros, (16,), jnp.float32)
        dense = jnp.zeros((5, 5, *table.shape)).at[:, :, sources, maps].set(kernel)
        layer = self.conv(16, (5, 5), padding=0, dtype=self.dtype, parent=None)
        return layer.apply({"params": {"kernel": dense, "bias": bias}}, x)


class RadialBasis(nn.Module):
    """Negated squared distances to the fixed codes of the digits.

    The paper's unit i outputs the penalty ``y_i = sum_j (x_j - w_ij)^2``. This layer
    returns ``-y_i``: the largest output is the prediction, as in every other network,
    and its softmax is the posterior of equation 9.

    Attributes:
      num_classes: number of digits, starting from 0.
    """

    num_classes: int = 10

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch units=84"]
    ) -> Float[Array, "batch {self.num_classes}"]:
        """``-y_i`` of each class, in float32."""
        codes = jnp.asarray(digit_codes()[None, : self.num_classes], jnp.float32)
        return -jnp.square(x.astype(jnp.float32)[:, None, :] - codes).sum(-1)


class LeNet5(nn.Module):
    """LeNet-5 of 1998; each step towards the modern net is a field.

    Attributes:
      num_classes: size of the output; at most 10 with ``output='rbf'``, whose
        codes exist only for digits.
      activation: 'tanh' (scaled) with weights uniform in +-2.4 / fan-in, or 'relu'
        with He initialisation and no activation after the subsampling.
      subsampling: 'trainable' or 'max'.
      c3: 'table' (16 maps see 3, 4 or 6 inputs) or 'dense' (all see all).
      output: 'rbf' gives negated penalties, to be trained with the loss 'map';
        'linear' gives logits.
      line: accept lines of any width and output the scores at each position, 4
        columns apart, in one pass (a space displacement network, section VII).
      conv: module of every convolution.
      dtype: type of the computation ('float32', 'bfloat16'); parameters and
        outputs are float32.

    Raises:
      ConfigError: on construction, an invalid field.
    """

    num_classes: int = 10
    activation: Literal["tanh", "relu"] = "tanh"
    subsampling: Literal["trainable", "max"] = "trainable"
    c3: Literal["table", "dense"] = "table"
    output: Literal["rbf", "linear"] = "rbf"
    line: bool = False
    conv: ModuleDef = Conv
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        super().__post_init__()
        check_fields(self)
        if self.output == "rbf" and self.num_classes > 10:
            raise names.ConfigError(
                f"LeNet5: output 'rbf' has codes for the 10 digits, "
                f"got num_classes {self.num_classes}; use output 'linear'"
            )

    @nn.compact
    def __call__(
        self, x: Images, train: bool
    ) -> Float[Array, "batch *position {self.num_classes}"]:
        """Outputs for a batch of images; the largest is the predicted class.

        Args:
          x: images (n, 32, 32, channels), background -0.1 and ink 1.175; with
            ``line``, (n, 32, width, channels).
          train: unused; training and evaluation behave alike.

        Returns:
          Negated penalties ('rbf') or logits (n, num_classes), float32; with
          ``line``, (n, (width - 32) // 4 + 1, num_classes).

        Raises:
          ConfigError: images of another size or number of channels.
        """
        check_images(self, x, first="C1", size=0 if self.line else 32, least=32)
        if x.shape[1] != 32:
            raise names.ConfigError(
                f"LeNet5 expects lines 32 pixels high, got {x.shape[1]}"
            )
        modern = self.activation == "relu"
        act = relu if modern else squash
        init = he_normal if modern else uniform_by_fan_in
        make: dict[str, Any] = {"kernel_init": init, "dtype": self.dtype}
        x = x.astype(self.dtype)
        x = act(self.conv(6, (5, 5), padding=0, name="C1", **make)(x))
        x = self.subsample(x, "S2")
        if self.c3 == "table":
            x = act(TableConv(conv=self.conv, dtype=self.dtype, name="C3")(x))
        else:
            x = act(self.conv(16, (5, 5), padding=0, name="C3", **make)(x))
        x = self.subsample(x, "S4")
        x = act(self.conv(120, (5, 5), padding=0, name="C5", **make)(x))
        n, _, positions, channels = x.shape
        x = act(nn.Dense(84, name="F6", **make)(x.reshape(-1, channels)))
        if self.output == "rbf":
            x = RadialBasis(self.num_classes, name="output")(x)
        else:
            x = x.astype(jnp.float32)
            x = nn.Dense(self.num_classes, kernel_init=init, name="output")(x)
        return x.reshape(n, positions, self.num_classes) if self.line else x

    def subsample(self, x: Images, name: str) -> FeatureMaps:
        """Halve each side; the trainable layer also applies the non-linearity."""
        if self.subsampling == "max":
            return max_pool(x, 2, 2)
        x = Subsampling(dtype=self.dtype, name=name)(x)
        return squash(x) if self.activation == "tanh" else x
