"""Residual networks and their plain counterparts.

One file, beyond 350 lines, because nets of all layouts are one class.

He, Zhang, Ren and Sun (2015), "Deep residual learning for image recognition",
table 1 (ImageNet) and section 4.2 (CIFAR-10), and (2016), "Identity mappings in
deep residual networks" (pre-activation). A plain net is the same module with
``shortcut='none'``. It has exactly the parameters of option A and lacks only the
addition.

CIFAR layout, n blocks per stage (depth 6n+2, bottlenecks 9n+2):

    stage      size      width    layers
    stem       32 x 32   16       3x3
    stage 1    32 x 32   16       n blocks
    stage 2    16 x 16   32       n blocks, the first of stride 2
    stage 3     8 x  8   64       n blocks, the first of stride 2
    head        1 x  1            global average pool, dense, softmax

ImageNet layout (widths 64, 128, 256, 512; bottlenecks output four times as many
channels):

    depth   block        blocks per stage   stem
    18      basic        2,  2,  2,  2      7x7 stride 2, 3x3 max-pool stride 2
    34      basic        3,  4,  6,  3
    50      bottleneck   3,  4,  6,  3
    101     bottleneck   3,  4, 23,  3
    152     bottleneck   3,  8, 36,  3
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float

from cnn_jax import names
from cnn_jax.models import layout
from cnn_jax.models.blocks import BLOCKS, Block, Shortcut
from cnn_jax.models.initializers import lecun_normal
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

IMAGENET_STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(nn.Module):
    """A residual net, or its plain counterpart with ``shortcut='none'``.

    Attributes:
      num_classes: size of the output.
      depth: weight layers, projections not counted: 6n+2 in the CIFAR layout
        (basic blocks), 9n+2 (bottlenecks), or a row of the ImageNet table.
      layout: 'cifar' or 'imagenet': stem, widths and blocks per stage.
      block: 'basic', 'bottleneck' or ``package.module:Class`` (see `Block`), or a
        section with that as ``name`` and the block's additional fields.
      shortcut: 'none', 'A', 'B' or 'C' (see `Block`).
      widths: channels of each stage's 3x3 layers; () for the layout's default.
      stage_sizes: blocks of each stage; () to derive them from the depth.
      layers_per_block: weight layers that a shortcut skips; 0 for the block's
        default (2 basic, 3 bottleneck).
      preactivation: pre-activation blocks (v2).
      bottleneck_stride: '1x1' (v1) or '3x3' (v1.5).
      zero_scale: initialise the last BN scale of each branch to 0; only with a shortcut
        and without ``preactivation``.
      stochastic_depth: probability that a training step drops the last block's
        branch. Block l of L is dropped with l/L times this probability (Huang et al.
        2016, equation 4, with 1 - p_L; the paper's nets use 0.5). Each device draws
        separately for its part of the batch.
      conv: module of every convolution.
      norm: module of every normalisation.
      dtype: type of the computation ('float32', 'bfloat16'); parameters, BN and
        logits are float32.
      scan: run all blocks of a stage but the first as one loop (`nn.scan`), so that
        compile time does not grow with depth. Their variables are stacked (see
        `stacks` and `cnn_jax.models.layout`). Initial values equal those of the
        unrolled net, and so do results up to rounding, except for draws of the
        stream 'dropout'.
      remat: store only each block's input for the backward pass and recompute the
        rest (`nn.remat`). On CPU this saves memory only with ``scan``.

    Raises:
      ConfigError: on construction, an invalid depth or field.
    """

    num_classes: int
    depth: int = 20
    layout: Literal["cifar", "imagenet"] = "cifar"
    block: str | Mapping[str, Any] = "basic"
    shortcut: Shortcut = "A"
    widths: Sequence[int] = ()
    stage_sizes: Sequence[int] = ()
    layers_per_block: int = 0
    preactivation: bool = False
    bottleneck_stride: Literal["1x1", "3x3"] = "1x1"
    zero_scale: bool = False
    stochastic_depth: float = 0.0
    conv: ModuleDef = Conv
    norm: ModuleDef = BatchNorm
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan: bool = False
    remat: bool = False

    # `nn.tabulate` treats every method as part of the forward pass unless it is marked
    # `nn.nowrap`. Methods that only read fields are marked, and so is
    # `init_with_output`.
    def __post_init__(self):
        if isinstance(self.block, Mapping):  # a dict would make the module unhashable
            object.__setattr__(self, "block", FrozenDict(self.block))
        super().__post_init__()
        check_fields(self)
        self.block_fields()
        self.blocks_per_stage()
        self.death_rates()
        if self.zero_scale and self.shortcut == "none":
            raise names.ConfigError(
                "zero_scale needs a shortcut: a plain block would output a constant; "
                "use shortcut 'A' or 'B'"
            )
        if self.zero_scale and self.preactivation and self.block_name() in BLOCKS:
            raise names.ConfigError(
                "zero_scale has no effect with preactivation, whose branches end with "
                "a convolution, not with BN; set one of them to False"
            )

    @nn.nowrap
    def block_class(self) -> Any:
        """The class named by ``block``."""
        name = self.block_name()
        block = names.resolve("block", name, BLOCKS)
        if not (isinstance(block, type) and issubclass(block, nn.Module)):
            raise names.ConfigError(f"block {name!r} is not a linen module class")
        return block

    @nn.nowrap
    def block_name(self) -> Any:
        """The name in ``block``."""
        if isinstance(self.block, str):
            return self.block
        if "name" not in self.block:
            raise names.ConfigError(
                f"block needs a 'name'; choices: {', '.join(BLOCKS)}"
            )
        return self.block["name"]

    @nn.nowrap
    def block_fields(self) -> dict[str, Any]:
        """The additional block fields given in ``block``."""
        if isinstance(self.block, str):
            return {}
        fields = {key: value for key, value in self.block.items() if key != "name"}
        kind = f"block {self.block_name()!r}"
        shared = [field.name for field in dataclasses.fields(Block)]
        names.check_fields(kind, self.block_class(), fields, given=shared)
        return fields

    @nn.nowrap
    def skipped_layers(self) -> int:
        """Number of weight layers in a block."""
        block = self.block_class()
        least = getattr(block, "default_layers", 2)
        if self.layers_per_block and self.layers_per_block < least:
            raise names.ConfigError(
                f"layers_per_block {self.layers_per_block}: a {self.block_name()} "
                f"block needs at least {least} layers (0 for its default)"
            )
        return self.layers_per_block or least

    @nn.nowrap
    def stage_widths(self) -> tuple[int, ...]:
        """Width of each stage."""
        own = (16, 32, 64) if self.layout == "cifar" else (64, 128, 256, 512)
        widths = tuple(self.widths) or own
        if min(widths) < 1:
            raise names.ConfigError(f"widths must be positive, got {widths}")
        if self.shortcut == "A" and list(widths) != sorted(widths):
            raise names.ConfigError(
                f"widths {widths} decrease: shortcut 'A' cannot drop channels; use "
                "shortcut 'B'"
            )
        return widths

    @nn.nowrap
    def blocks_per_stage(self) -> tuple[int, ...]:
        """Blocks of each stage, from ``stage_sizes`` or the depth."""
        if self.layout not in ("cifar", "imagenet"):
            raise names.choices("layout", self.layout, ("cifar", "imagenet"))
        if self.shortcut not in ("none", "A", "B", "C"):
            raise names.choices("shortcut", self.shortcut, ("none", "A", "B", "C"))
        layers, widths = self.skipped_layers(), self.stage_widths()
        if self.stage_sizes:
            sizes = tuple(self.stage_sizes)
            if len(sizes) != len(widths):
                raise names.ConfigError(
                    f"stage_sizes {sizes} and widths {widths} differ in length"
                )
            if min(sizes) < 1:
                raise names.ConfigError(f"stage_sizes must be positive, got {sizes}")
        elif self.layout == "imagenet":
            if self.depth not in IMAGENET_STAGES:
                raise names.choices("depth", self.depth, list(IMAGENET_STAGES))
            sizes = IMAGENET_STAGES[self.depth]
        else:
            step = layers * len(widths)
            blocks, left = divmod(self.depth - 2, step)
            if left or blocks < 1:
                near = [step * n + 2 for n in range(max(blocks, 1), max(blocks, 1) + 2)]
                raise names.ConfigError(
                    f"depth {self.depth} is not {step}n+2 (n = 1, 2, ...), as the "
                    f"CIFAR layout with {self.block_name()} blocks needs; nearest: "
                    f"{near[0]}, {near[1]}"
                )
            sizes = (blocks,) * len(widths)
        if 2 + layers * sum(sizes) != self.depth:
            raise names.ConfigError(
                f"depth {self.depth} does not match stage_sizes: {sum(sizes)} "
                f"{self.block_name()} blocks of {layers} layers have "
                f"{2 + layers * sum(sizes)} weight layers"
            )
        return sizes

    @nn.nowrap
    def death_rates(self) -> tuple[float, ...]:
        """Probability of dropping each block's branch, in block order."""
        last = self.stochastic_depth
        if not 0 <= last < 1:
            raise names.ConfigError(f"stochastic_depth must be in [0, 1), got {last}")
        if last and self.shortcut == "none":
            raise names.ConfigError(
                f"stochastic_depth {last} needs a shortcut: a dropped plain block "
                "would pass nothing on; use shortcut 'A' or 'B'"
            )
        count = sum(self.blocks_per_stage())
        return tuple(last * number / count for number in range(1, count + 1))

    @nn.nowrap
    def stacks(self) -> dict[str, tuple[str, ...]]:
        """Names of the stacks of variables, and of the blocks in each.

        Returns:
          ``{'stage1_blocks': ('stage1_block2', 'stage1_block3', ...), ...}``. The
          first block of a stage, which may differ from the others, is in no stack.
          Empty if the net is unrolled.
        """
        return {
            f"stage{stage}_blocks": tuple(
                f"stage{stage}_block{index}" for index in range(2, size + 1)
            )
            for stage, size in enumerate(self.blocks_per_stage(), start=1)
            if self.scan and size > 1
        }

    @nn.nowrap
    def init_with_output(self, *arguments: Any, **keywords: Any) -> Any:
        """As in `nn.Module`, with initial values that do not depend on ``scan``."""
        if not self.scan:
            return super().init_with_output(*arguments, **keywords)
        unrolled = self.clone(scan=False)
        output, variables = unrolled.init_with_output(*arguments, **keywords)
        return output, layout.stack(variables, self)

    @nn.compact
    def __call__(
        self, x: Images, train: bool
    ) -> Float[Array, "batch {self.num_classes}"]:
        """Logits of a batch of images.

        Args:
          x: normalised images (n, height, width, channels).
          train: use and record batch statistics instead of running ones, and drop
            blocks with stochastic depth (needs the random stream 'dropout').

        Returns:
          Logits (n, num_classes), float32.

        Raises:
          ConfigError: images of another rank or number of channels.
        """
        check_images(self, x, first="stem_conv")
        x = self.stem(x.astype(self.dtype), train)
        rates = iter(self.death_rates())
        stages = zip(self.blocks_per_stage(), self.stage_widths(), strict=True)
        for stage, (size, width) in enumerate(stages, start=1):
            name = f"stage{stage}_block"
            stride = 2 if stage > 1 else 1
            first = {"activated": True} if self.preactivation and stage == 1 else {}
            x = self.make_block(f"{name}1", width, stride, next(rates), **first)(
                x, train
            )
            rest = [next(rates) for _ in range(size - 1)]
            if self.scan and rest:
                block = self.make_block(f"{name}s", width, 1, 0.0)
                x = self.loop(block, x, train, rest)
                continue
            for index, rate in enumerate(rest, start=2):
                x = self.make_block(f"{name}{index}", width, 1, rate)(x, train)
        if self.preactivation:
            x = relu(self.norm(dtype=self.dtype, name="bn_final")(x, train))
        x = global_average_pool(x)
        return nn.Dense(self.num_classes, kernel_init=lecun_normal, name="head")(x)

    def make_block(
        self, name: str, width: int, stride: int, death_rate: float, **more: Any
    ) -> nn.Module:
        """A block with this net's fields, and more."""
        block = self.block_class()
        # A transformed module would draw other initial values.
        if self.remat and not self.is_initializing():
            block = nn.remat(block, static_argnums=(2,), prevent_cse=not self.scan)
        return block(
            width=width,
            stride=stride,
            shortcut=self.shortcut,
            num_layers=self.skipped_layers(),
            preactivation=self.preactivation,
            bottleneck_stride=self.bottleneck_stride,
            zero_scale=self.zero_scale,
            death_rate=death_rate,
            conv=self.conv,
            norm=self.norm,
            dtype=self.dtype,
            name=name,
            **more,
            **self.block_fields(),
        )

    def loop(
        self,
        block: nn.Module,
        x: FeatureMaps,
        train: bool,
        death_rates: Sequence[float],
    ) -> FeatureMaps:
        """Apply a block once per death rate, in a loop with stacked variables."""

        def body(
            block: nn.Module, x: FeatureMaps, rate: Any
        ) -> tuple[FeatureMaps, None]:
            if self.stochastic_depth:
                # The rate is a literal in an unrolled block, but data in the loop.
                block = block.clone(parent=block.scope, death_rate=rate)
            return block(x, train), None

        repeated = nn.scan(
            body,
            variable_axes={True: 0},
            split_rngs={True: True},
            length=len(death_rates),
        )
        return repeated(block, x, jnp.asarray(death_rates, jnp.float32))[0]

    def stem(self, x: Images, train: bool) -> FeatureMaps:
        """The first layer: 3x3 (CIFAR), or 7x7 / 2 and max-pool 3x3 / 2 (ImageNet)."""
        large = self.layout == "imagenet"
        x = self.conv(
            self.stage_widths()[0],
            (7, 7) if large else (3, 3),
            strides=2 if large else 1,
            padding=3 if large else 1,
            use_bias=False,
            dtype=self.dtype,
            name="stem_conv",
        )(x)
        x = relu(self.norm(dtype=self.dtype, name="stem_bn")(x, train))
        return max_pool(x, 3, 2, ((1, 1), (1, 1))) if large else x
