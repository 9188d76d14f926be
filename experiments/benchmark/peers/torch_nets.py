"""The networks in torch, for tests and the benchmark to compare with.

AlexNet (one tower, no LRN), VGG and ResNet (v1.5, shortcut B) use the names of
torchvision's state_dict. Other arguments build the papers' other nets.
"""

from collections import OrderedDict

import flax.linen
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cnn_jax.models import lenet
from cnn_jax.models.alexnet import AlexNet
from cnn_jax.models.layers import BatchNorm
from cnn_jax.models.lenet import LeNet5
from cnn_jax.models.nin import LAYOUTS, NIN
from cnn_jax.models.resnet import ResNet
from cnn_jax.models.vgg import VGG
from experiments.benchmark.peers import NoPeer


class Squash(nn.Module):
    """The scaled hyperbolic tangent of LeCun et al. (1998), appendix A."""

    def forward(self, x):
        """An array of the same shape."""
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """Sum of each 2x2 window times a coefficient, plus a bias; then an activation."""

    def __init__(self, channels, last):
        super().__init__()
        self.last = last
        self.coefficient = nn.Parameter(torch.empty(channels).uniform_(-0.6, 0.6))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        """From (n, c, 2h, 2w) to (n, c, h, w)."""
        total = 4 * functional.avg_pool2d(x, 2)
        scaled = total * self.coefficient[:, None, None]
        return self.last(scaled + self.bias[:, None, None])


class TableConv(nn.Module):
    """C3: the 5x5 kernels of the paper's table I, stored in a dense kernel."""

    def __init__(self):
        super().__init__()
        table = lenet.c3_connections()
        sources, maps = np.nonzero(table)
        bound = torch.from_numpy(2.4 / (25 * table.sum(0))).float()[maps, None, None]
        kernels = torch.empty(len(maps), 5, 5).uniform_(-1, 1)
        self.kernels = nn.Parameter(bound * kernels)
        self.bias = nn.Parameter(torch.zeros(16))
        places = torch.from_numpy(np.stack([maps, sources]))
        self.register_buffer("places", places, persistent=False)

    def forward(self, x):
        """From (n, 6, h, w) to (n, 16, h - 4, w - 4)."""
        dense = self.kernels.new_zeros(16, 6, 5, 5)
        dense = dense.index_put(tuple(self.places), self.kernels)
        return functional.conv2d(x, dense, self.bias)


class Penalties(nn.Module):
    """Negated squared distances to the codes of digits."""

    def __init__(self, classes):
        super().__init__()
        codes = torch.from_numpy(lenet.digit_codes()[:classes]).float()
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, x):
        """From (n, 84) to (n, classes)."""
        return -(x.float()[:, None] - self.codes).square().sum(-1)


def lenet5(module, channels):
    """LeNet-5, of 1998 or modern, with the fields of this package's module."""
    paper = module.activation == "tanh"
    activate, last = (Squash, Squash()) if paper else (nn.ReLU, nn.Identity())

    def subsample(width):
        pool = module.subsampling == "max"
        return nn.MaxPool2d(2) if pool else Subsampling(width, last)

    classes = module.num_classes
    linear = module.output == "linear"
    layers = {
        **{"c1": nn.Conv2d(channels, 6, 5), "a1": activate(), "s2": subsample(6)},
        "c3": TableConv() if module.c3 == "table" else nn.Conv2d(6, 16, 5),
        **{"a3": activate(), "s4": subsample(16)},
        **{"c5": nn.Conv2d(16, 120, 5), "a5": activate(), "flatten": nn.Flatten()},
        **{"f6": nn.Linear(120, 84), "a6": activate()},
        "output": nn.Linear(84, classes) if linear else Penalties(classes),
    }
    return nn.Sequential(OrderedDict(layers))


def alexnet(
    classes, widths, hidden, groups=1, padding=2, lrn=False, channels=3, **dropout
):
    """One tower, or two as groups; dropout before or after the dense layers."""
    a, b, c, d, e = widths
    # torch divides alpha by the size, the paper does not
    norm = [nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)] if lrn else []
    features = [
        *(nn.Conv2d(channels, a, 11, stride=4, padding=padding), nn.ReLU()),
        *(*norm, nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(a, b, 5, padding=2, groups=groups), nn.ReLU()),
        *(*norm, nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(c, d, 3, padding=1, groups=groups), nn.ReLU()),
        *(nn.Conv2d(d, e, 3, padding=1, groups=groups), nn.ReLU()),
        nn.MaxPool2d(3, 2),
    ]
    return with_head(features, e, 6, hidden, classes, **dropout)


def with_head(
    features, channels, side, hidden, classes, dropout=0.5, dropout_at="input"
):
    """Convolutions, pooling to a fixed side, dense layers, with torchvision's names."""
    dense, units = [], side * side * channels
    for width in hidden:
        layer, drop = [nn.Linear(units, width), nn.ReLU()], nn.Dropout(dropout)
        dense += [drop, *layer] if dropout_at == "input" else [*layer, drop]
        units = width
    layers = {
        "features": nn.Sequential(*features),
        "avgpool": nn.AdaptiveAvgPool2d(side),
        "flatten": nn.Flatten(),
        "classifier": nn.Sequential(*dense, nn.Linear(units, classes)),
    }
    return nn.Sequential(OrderedDict(layers))


def vgg(
    classes, letter, widths, hidden, batch_norm=False, channels=3, dropout=0.5, side=7
):
    """A column of the paper's table 1.

    ``side`` is that of the last feature map: 1/32 of the image's.
    """
    features = []
    for stage, width in enumerate(widths):
        kernels = [3] if letter == "A" and stage < 2 else [3, 3]
        if stage >= 2:
            kernels += {"C": [1], "D": [3], "E": [3, 3]}.get(letter, [])
        for kernel in kernels:
            features.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
            features += [nn.BatchNorm2d(width)] if batch_norm else []
            features.append(nn.ReLU())
            channels = width
        features.append(nn.MaxPool2d(2, 2))
    return with_head(features, channels, side, hidden, classes, dropout, "output")


def nin(layers, channels=3, dropout=0.5, drop_all=True):
    """``layers`` lists the mlpconv layers: (kernel, stride, padding), widths.

    Dropout follows all max-pools or the last one.
    """
    body = []
    for number, (convolution, widths) in enumerate(layers, start=1):
        for width in widths:
            body += [nn.Conv2d(channels, width, *convolution), nn.ReLU()]
            channels, convolution = width, (1, 1, 0)
        if number < len(layers):
            body.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        if number == len(layers) - 1 or (drop_all and number < len(layers)):
            body.append(nn.Dropout(dropout))
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Block(nn.Module):
    """v1, v1.5 or v2, basic or bottleneck; shortcut 'none', 'A', 'B' or 'C'.

    Where v2 changes the shape, the projection reads the activated input.
    """

    def __init__(
        self, channels, width, stride, v2, bottleneck=False, shortcut="B", v1=False
    ):
        super().__init__()
        self.out = out = width * 4 if bottleneck else width
        plan = [(width, 3, stride), (out, 3, 1)]
        if bottleneck:
            first, second = (stride, 1) if v1 else (1, stride)
            plan = [(width, 1, first), (width, 3, second), (out, 1, 1)]
        inputs = channels
        for index, (outputs, kernel, step) in enumerate(plan, start=1):
            conv = nn.Conv2d(inputs, outputs, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{index}", conv)
            self.add_module(f"bn{index}", nn.BatchNorm2d(inputs if v2 else outputs))
            inputs = outputs
        self.layers, self.v2, self.shortcut = len(plan), v2, shortcut
        self.downsample, changes = None, stride > 1 or channels != out
        project = nn.Conv2d(channels, out, 1, stride, bias=False)
        if shortcut == "C" or (shortcut == "B" and changes):
            norm = [] if v2 else [nn.BatchNorm2d(out)]
            self.downsample = nn.Sequential(project, *norm)
        elif shortcut == "A" and changes:
            # Every second pixel, padded with zero channels.
            padding = nn.ConstantPad3d((0, 0, 0, 0, 0, out - channels), 0.0)
            self.downsample = nn.Sequential(nn.AvgPool2d(1, stride), padding)

    def forward(self, x):
        """From (n, c, h, w) to (n, out, h / stride, w / stride)."""
        y = entry = x
        for index in range(1, self.layers + 1):
            conv, norm = getattr(self, f"conv{index}"), getattr(self, f"bn{index}")
            if self.v2:
                y = functional.relu(norm(y))
                entry = y if index == 1 else entry
                y = conv(y)
            else:
                y = norm(conv(y))
                y = functional.relu(y) if index < self.layers else y
        if self.shortcut != "none":
            y = y + (x if self.downsample is None else self.downsample(entry))
        return y if self.v2 else functional.relu(y)


def resnet(
    classes, sizes, widths, cifar=False, preactivation=False, channels=3, **block
):
    """Plain and residual nets; ``sizes`` are the numbers of blocks per stage."""
    stem = (3, 1, 1) if cifar else (7, 2, 3)
    layers = {"conv1": nn.Conv2d(channels, widths[0], *stem, bias=False)}
    channels = widths[0]
    layers |= {"bn1": nn.BatchNorm2d(channels), "relu": nn.ReLU()}
    if not cifar:
        layers["maxpool"] = nn.MaxPool2d(3, 2, 1)
    for number, (size, width) in enumerate(zip(sizes, widths, strict=True), start=1):
        blocks = []
        for position in range(size):
            stride = 2 if number > 1 and not position else 1
            blocks.append(Block(channels, width, stride, preactivation, **block))
            if preactivation and number == 1 and not position:
                blocks[-1].bn1 = nn.Identity()  # the stem is activated
            channels = blocks[-1].out
        layers[f"layer{number}"] = nn.Sequential(*blocks)
    if preactivation:
        layers |= {"last": nn.BatchNorm2d(channels), "last_relu": nn.ReLU()}
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    layers["fc"] = nn.Linear(channels, classes)
    return nn.Sequential(OrderedDict(layers))


def twin_of(module: flax.linen.Module, channels: int) -> nn.Module:
    """The same network in torch: same layers, same number of parameters.

    Args:
      module: a network of this package.
      channels: channels of its images.

    Returns:
      A torch module for images (n, channels, h, w), with torch's own initial weights.

    Raises:
      NoPeer: this file has no torch version of the network.
    """
    classes, kind = module.num_classes, type(module)
    if kind is LeNet5 and not module.line:
        return lenet5(module, channels)
    if kind is VGG:
        fields = (module.batch_norm, channels, module.dropout, module.image_size // 32)
        letter, widths = module.configuration, module.widths
        return vgg(classes, letter, widths, module.hidden, *fields)
    # torch's average pool would change feature maps of other image sizes.
    own_size = {0: 227, 2: 224}
    if kind is AlexNet and own_size.get(module.stem[2]) == module.image_size:
        fields = (module.towers, module.stem[2], module.lrn, channels)
        drop = {"dropout": module.dropout, "dropout_at": module.dropout_at}
        return alexnet(classes, module.widths, module.hidden, *fields, **drop)
    if kind is NIN and not module.batch_norm and module.width == 1:
        *layers, (convolution, widths) = LAYOUTS[module.layout]
        layers.append((convolution, (*widths, classes)))
        return nin(layers, channels, module.dropout, module.layout == "cifar")
    blocks = ("basic", "bottleneck")
    if kind is ResNet and module.norm is BatchNorm and module.block in blocks:
        bottleneck = module.block == "bottleneck"
        usual = module.skipped_layers() == (3 if bottleneck else 2)
        projects = module.shortcut == "B" or not module.preactivation
        if usual and projects and not module.stochastic_depth:
            fields = (module.layout == "cifar", module.preactivation, channels)
            block = {"bottleneck": bottleneck, "shortcut": module.shortcut}
            block["v1"] = module.bottleneck_stride == "1x1"
            sizes, widths = module.blocks_per_stage(), module.stage_widths()
            return resnet(classes, sizes, widths, *fields, **block)
    raise NoPeer(f"there is no torch version of this {kind.__name__}")
