"""The networks once more, in torch: what tests and the benchmark compare with.

AlexNet (one tower, no LRN), VGG and ResNet (v1.5, shortcut B) carry the names of
torchvision's state_dict; the arguments make the papers' other nets.
"""

import flax.linen
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cnn_jax.models import alexnet, lenet, nin, resnet, vgg
from experiments.benchmark.peers import NoPeer


def squash(x):
    """The scaled hyperbolic tangent of LeCun et al. (1998), appendix A."""
    return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """Sum of each 2x2 window times a coefficient, plus a bias: one pair a map."""

    def __init__(self, maps):
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(maps).uniform_(-0.6, 0.6))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x):
        """From (n, c, 2h, 2w) to (n, c, h, w)."""
        total = 4 * functional.avg_pool2d(x, 2)
        return total * self.coefficient[:, None, None] + self.bias[:, None, None]


class TableConv(nn.Module):
    """C3: the 5x5 kernels that the paper's table I has, laid out in a dense one."""

    def __init__(self):
        super().__init__()
        table = lenet.c3_connections()
        sources, maps = (torch.from_numpy(index) for index in np.nonzero(table))
        bound = torch.from_numpy(2.4 / (25 * table.sum(0))).float()[maps, None, None]
        kernels = torch.empty(len(maps), 5, 5).uniform_(-1, 1)
        self.kernels = nn.Parameter(bound * kernels)
        self.bias = nn.Parameter(torch.zeros(16))
        self.register_buffer("sources", sources, persistent=False)
        self.register_buffer("maps", maps, persistent=False)

    def forward(self, x):
        """From (n, 6, h, w) to (n, 16, h - 4, w - 4)."""
        dense = self.kernels.new_zeros(16, 6, 5, 5)
        dense = dense.index_put((self.maps, self.sources), self.kernels)
        return functional.conv2d(x, dense, self.bias)


class LeNet5(nn.Module):
    """LeNet-5 of 1998 or of today; the arguments are those of this package's."""

    def __init__(self, classes, activation, subsampling, c3, output, channels=1):
        super().__init__()
        paper = activation == "tanh"
        self.activate = squash if paper else functional.relu

        def subsample(maps):
            return nn.MaxPool2d(2) if subsampling == "max" else Subsampling(maps)

        self.after_subsampling = (
            squash if paper and subsampling == "trainable" else nn.Identity()
        )
        self.c1 = nn.Conv2d(channels, 6, 5)
        self.s2 = subsample(6)
        self.c3 = TableConv() if c3 == "table" else nn.Conv2d(6, 16, 5)
        self.s4 = subsample(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, classes) if output == "linear" else None
        if self.output is None:
            codes = torch.from_numpy(lenet.digit_codes()[:classes]).float()
            self.register_buffer("codes", codes, persistent=False)

    def forward(self, x):
        """Logits, or negated squared distances to the codes."""
        x = self.after_subsampling(self.s2(self.activate(self.c1(x))))
        x = self.after_subsampling(self.s4(self.activate(self.c3(x))))
        x = self.activate(self.f6(self.activate(self.c5(x)).flatten(1)))
        if self.output is not None:
            return self.output(x)
        return -(x.float()[:, None] - self.codes).square().sum(-1)


class PaperLRN(nn.Module):
    """torch divides alpha by the size, the paper does not."""

    def forward(self, x):
        """An array of the same shape."""
        return functional.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)


class AlexNet(nn.Module):
    """One tower, or two as groups; dropout before the dense layers or after."""

    def __init__(
        self,
        classes,
        widths,
        hidden,
        groups=1,
        padding=2,
        lrn=False,
        channels=3,
        dropout=0.5,
        dropout_at="input",
    ):
        super().__init__()
        a, b, c, d, e = widths
        norm = PaperLRN if lrn else nn.Identity
        features = [
            nn.Conv2d(channels, a, 11, stride=4, padding=padding),
            nn.ReLU(),
            *([norm()] if lrn else []),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(a, b, 5, padding=2, groups=groups),
            nn.ReLU(),
            *([norm()] if lrn else []),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(b, c, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c, d, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(d, e, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        ]
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        dense = [nn.Linear(36 * e, hidden[0]), nn.ReLU()]
        dense_too = [nn.Linear(hidden[0], hidden[1]), nn.ReLU()]
        drop = [nn.Dropout(dropout)]
        if dropout_at == "input":
            layers = [*drop, *dense, *drop, *dense_too]
        else:
            layers = [*dense, *drop, *dense_too, *drop]
        self.classifier = nn.Sequential(*layers, nn.Linear(hidden[1], classes))

    def forward(self, x):
        """Logits of images (n, c, h, w)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class VGG(nn.Module):
    """`plan` lists widths, 'M' for a max-pool and ('1x1', width) for C's.

    ``side`` is that of the last map: a 32nd of the image's.
    """

    def __init__(
        self,
        classes,
        plan,
        hidden,
        batch_norm=False,
        channels=3,
        dropout=0.5,
        side=7,
    ):
        super().__init__()
        features = []
        for item in plan:
            if item == "M":
                features.append(nn.MaxPool2d(2, 2))
                continue
            width, kernel = (item[1], 1) if isinstance(item, tuple) else (item, 3)
            features.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
            if batch_norm:
                features.append(nn.BatchNorm2d(width))
            features.append(nn.ReLU())
            channels = width
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        dense, units = [], side * side * channels
        for width in hidden:
            dense += [nn.Linear(units, width), nn.ReLU(), nn.Dropout(dropout)]
            units = width
        self.classifier = nn.Sequential(*dense, nn.Linear(units, classes))

    def forward(self, x):
        """Logits of images (n, c, h, w)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def vgg_plan(letter, w):
    """The columns of the paper's table 1, at widths ``w``."""
    third = {"D": [3], "E": [3, 3], "C": [1]}.get(letter, [])
    plan = []
    for stage, width in enumerate(w):
        count = 1 if letter == "A" and stage < 2 else 2
        plan += [width] * count
        if stage >= 2:
            plan += [width if k == 3 else ("1x1", width) for k in third]
        plan.append("M")
    return plan


class NIN(nn.Module):
    """``layers`` has convolutions (k, s, p, width), widths of 1x1, 'M' and 'D'.

    'M' is a max-pool, 'D' dropout.
    """

    def __init__(self, layers, channels=3, dropout=0.5):
        super().__init__()
        body = []
        for item in layers:
            if item == "M":
                body.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            if item == "D":
                body.append(nn.Dropout(dropout))
                continue
            k, s, p, width = item if isinstance(item, tuple) else (1, 1, 0, item)
            body += [nn.Conv2d(channels, width, k, s, p), nn.ReLU()]
            channels = width
        self.body = nn.Sequential(*body)

    def forward(self, x):
        """Logits of images (n, c, h, w)."""
        return self.body(x).mean((2, 3))


class PadShortcut(nn.Module):
    """Option A: every second pixel, zero channels after."""

    def __init__(self, stride, more):
        super().__init__()
        self.stride, self.more = stride, more

    def forward(self, x):
        """From (n, c, h, w) to (n, c + more, h / stride, w / stride)."""
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, 0, self.more))


class ResidualBlock(nn.Module):
    """v1 or v1.5, basic or bottleneck; shortcut 'none', 'A', 'B' or 'C'."""

    def __init__(self, channels, width, stride, bottleneck, shortcut, v1, changes):
        super().__init__()
        out = width * 4 if bottleneck else width
        if bottleneck:
            first, second = (stride, 1) if v1 else (1, stride)
            self.conv1 = nn.Conv2d(channels, width, 1, first, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, second, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, out, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out)
        else:
            self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
        self.bottleneck, self.shortcut = bottleneck, shortcut
        self.downsample = None
        if shortcut == "C" or (shortcut == "B" and changes):
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )
        elif shortcut == "A" and changes:
            self.downsample = PadShortcut(stride, out - channels)

    def forward(self, x):
        """From (n, c, h, w) to (n, out, h / stride, w / stride)."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(functional.relu(y)))
        if self.shortcut != "none":
            y = y + (x if self.downsample is None else self.downsample(x))
        return functional.relu(y)


class PreactivationBlock(nn.Module):
    """v2; where the shape changes, the projection reads the activated input."""

    def __init__(self, channels, width, stride, bottleneck, shortcut, v1, changes):
        super().__init__()
        out = width * 4 if bottleneck else width
        kernels = [1, 3, 1] if bottleneck else [3, 3]
        strides = [stride, 1, 1] if v1 or not bottleneck else [1, stride, 1]
        widths = [width, width, out] if bottleneck else [width, out]
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        c = channels
        for k, s, w in zip(kernels, strides, widths, strict=False):
            self.norms.append(nn.BatchNorm2d(c))
            self.convs.append(nn.Conv2d(c, w, k, s, k // 2, bias=False))
            c = w
        self.project = nn.Conv2d(channels, out, 1, stride, bias=False)
        self.project = self.project if changes else None

    def forward(self, x):
        """From (n, c, h, w) to (n, out, h / stride, w / stride)."""
        entry = functional.relu(self.norms[0](x))
        y = self.convs[0](entry)
        for norm, conv in zip(self.norms[1:], self.convs[1:], strict=True):
            y = conv(functional.relu(norm(y)))
        return y + (x if self.project is None else self.project(entry))


class ResNet(nn.Module):
    """Plain and residual nets; ``sizes`` are blocks of each stage."""

    def __init__(
        self,
        classes,
        sizes,
        widths,
        bottleneck=False,
        shortcut="B",
        v1=False,
        preactivation=False,
        cifar=False,
        channels=3,
    ):
        super().__init__()
        block = PreactivationBlock if preactivation else ResidualBlock
        self.preactivation, self.cifar = preactivation, cifar
        stem = (3, 1, 1) if cifar else (7, 2, 3)
        self.conv1 = nn.Conv2d(channels, widths[0], *stem, bias=False)
        channels = widths[0]
        if not (cifar and preactivation):
            self.bn1 = nn.BatchNorm2d(channels)
        stages = []
        for index, (size, width) in enumerate(zip(sizes, widths, strict=True)):
            blocks = []
            for position in range(size):
                stride = 2 if index and not position else 1
                out = width * 4 if bottleneck else width
                changes = stride > 1 or channels != out
                blocks.append(
                    block(channels, width, stride, bottleneck, shortcut, v1, changes)
                )
                channels = out
            stages.append(nn.Sequential(*blocks))
        for number, stage in enumerate(stages, start=1):
            setattr(self, f"layer{number}", stage)
        self.stages = len(stages)
        if preactivation:
            self.last = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        """Logits of images (n, c, h, w)."""
        x = self.conv1(x)
        if not (self.cifar and self.preactivation):
            x = functional.relu(self.bn1(x))
        if not self.cifar:
            x = functional.max_pool2d(x, 3, 2, 1)
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        if self.preactivation:
            x = functional.relu(self.last(x))
        return self.fc(x.mean((2, 3)))


def twin_of(module: flax.linen.Module, channels: int) -> nn.Module:
    """The same network in torch: same layers, same number of parameters.

    Args:
      module: a network of this package.
      channels: of its images.

    Returns:
      A torch module for images (n, channels, h, w); weights are torch's own draws.

    Raises:
      NoPeer: nobody wrote that network in torch here.
    """
    classes = module.num_classes
    kind = type(module)
    if kind is lenet.LeNet5 and not module.line:
        fields = (module.activation, module.subsampling, module.c3, module.output)
        return LeNet5(classes, *fields, channels=channels)
    if kind is vgg.VGG:
        plan = vgg_plan(module.configuration, module.widths)
        return VGG(
            classes,
            plan,
            module.hidden,
            batch_norm=module.batch_norm,
            channels=channels,
            dropout=module.dropout,
            side=module.image_size // 32,
        )
    # Its average pool would change other maps than these.
    own_size = {0: 227, 2: 224}
    if kind is alexnet.AlexNet and own_size.get(module.stem[2]) == module.image_size:
        return AlexNet(
            classes,
            module.widths,
            module.hidden,
            groups=module.towers,
            padding=module.stem[2],
            lrn=module.lrn,
            channels=channels,
            dropout=module.dropout,
            dropout_at=module.dropout_at,
        )
    if kind is nin.NIN and not module.batch_norm and module.width == 1:
        layers = nin_layers(module.layout, classes)
        return NIN(layers, channels=channels, dropout=module.dropout)
    if kind is resnet.ResNet and module.block_name() in resnet.BLOCKS:
        usual = resnet.BLOCKS[module.block_name()].default_layers
        projects = module.shortcut == "B" or not module.preactivation
        whole = not module.stochastic_depth
        if module.skipped_layers() == usual and projects and whole:
            return ResNet(
                classes,
                module.blocks_per_stage(),
                module.stage_widths(),
                bottleneck=module.block_name() == "bottleneck",
                shortcut=module.shortcut,
                v1=module.bottleneck_stride == "1x1",
                preactivation=module.preactivation,
                cifar=module.layout == "cifar",
                channels=channels,
            )
    raise NoPeer(f"no torch version of this {kind.__name__}")


def nin_layers(layout: str, classes: int) -> list:
    """The layers of the 'cifar' or 'imagenet' net, as `NIN` takes them."""
    table = nin.LAYOUTS[layout]
    layers = []
    for index, ((kernel, stride, padding), widths) in enumerate(table, start=1):
        first, *rest = widths
        layers += [(kernel, stride, padding, first), *rest]
        if index < len(table):
            layers.append("M")
        if index == len(table) - 1 or (layout == "cifar" and index < len(table)):
            layers.append("D")
    return [*layers, classes]
