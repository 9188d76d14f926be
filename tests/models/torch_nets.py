"""The networks once more, in torch: the independent implementation of the tests.

AlexNet (one tower, no LRN), VGG and ResNet (v1.5, shortcut B) carry the names of
torchvision's state_dict; the arguments make the papers' other nets.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class PaperLRN(nn.Module):
    """torch divides alpha by the size, the paper does not."""

    def forward(self, x):
        return functional.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)


class AlexNet(nn.Module):
    def __init__(self, classes, widths, hidden, groups=1, padding=2, lrn=False):
        super().__init__()
        a, b, c, d, e = widths
        norm = PaperLRN if lrn else nn.Identity
        features = [
            nn.Conv2d(3, a, 11, stride=4, padding=padding),
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
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(36 * e, hidden[0]),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(),
            nn.Linear(hidden[1], classes),
        )

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class VGG(nn.Module):
    """`plan` lists widths, 'M' for a max-pool and ('1x1', width) for C's."""

    def __init__(self, classes, plan, hidden, batch_norm=False):
        super().__init__()
        features, channels = [], 3
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
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(49 * channels, hidden[0]),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden[0], hidden[1]),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden[1], classes),
        )

    def forward(self, x):
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
    """``layers`` holds convolutions (k, s, p, width), widths of 1x1, and 'M'."""

    def __init__(self, layers):
        super().__init__()
        body, channels = [], 3
        for item in layers:
            if item == "M":
                body.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            k, s, p, width = item if isinstance(item, tuple) else (1, 1, 0, item)
            body += [nn.Conv2d(channels, width, k, s, p), nn.ReLU()]
            channels = width
        self.body = nn.Sequential(*body)

    def forward(self, x):
        return self.body(x).mean((2, 3))


class PadShortcut(nn.Module):
    """Option A: every second pixel, zero channels after."""

    def __init__(self, stride, more):
        super().__init__()
        self.stride, self.more = stride, more

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, 0, self.more))


class ResidualBlock(nn.Module):
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
        entry = functional.relu(self.norms[0](x))
        y = self.convs[0](entry)
        for norm, conv in zip(self.norms[1:], self.convs[1:], strict=True):
            y = conv(functional.relu(norm(y)))
        return y + (x if self.project is None else self.project(entry))


class ResNet(nn.Module):
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
    ):
        super().__init__()
        block = PreactivationBlock if preactivation else ResidualBlock
        self.preactivation, self.cifar = preactivation, cifar
        stem = (3, 1, 1) if cifar else (7, 2, 3)
        channels = widths[0]
        self.conv1 = nn.Conv2d(3, channels, *stem, bias=False)
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


def randomize(net, seed=0):
    """Weights by fan-in, and batch-norm statistics that are not trivial."""
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()


def logits(net, images):
    """Of NHWC images as an array."""
    with torch.no_grad():
        return net(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def leaves(net, images):
    """Layers with weights in the order in which they run, and what they put out."""
    found = []

    def record(module, _, output):
        found.append((module, tuple(output.shape)))

    kinds = nn.Conv2d | nn.Linear | nn.BatchNorm2d
    hooks = [
        module.register_forward_hook(record)
        for module in net.modules()
        if isinstance(module, kinds)
    ]
    logits(net, images)
    for hook in hooks:
        hook.remove()
    return found


def state_dict(net):
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


def variables_of(net, images, layer_names):
    """A torch net's weights in the order it runs, under the names given."""
    variables = {"params": {}, "batch_stats": {}}
    found = leaves(net, images)
    assert len(found) == len(layer_names)
    before = None
    for (module, shape), name in zip(found, layer_names, strict=True):
        params, stats = variables["params"], variables["batch_stats"]
        *parents, own = name.split("/")
        for parent in parents:
            params, stats = params.setdefault(parent, {}), stats.setdefault(parent, {})
        get = {key: value.numpy() for key, value in module.state_dict().items()}
        if isinstance(module, nn.BatchNorm2d):
            params[own] = {"scale": get["weight"], "bias": get["bias"]}
            stats[own] = {"mean": get["running_mean"], "var": get["running_var"]}
        else:
            weight = get["weight"]
            if isinstance(module, nn.Conv2d):
                kernel = np.moveaxis(weight, (0, 1), (3, 2))
            else:
                kernel = weight.T
                if before is not None and len(before) == 4:
                    c = before[1]
                    side = round((weight.shape[1] // c) ** 0.5)
                    if side > 1:  # torch flattens channels first
                        kernel = weight.reshape(-1, c, side * side)
                        kernel = kernel.transpose(2, 1, 0).reshape(-1, len(weight))
            params[own] = {"kernel": kernel}
            if "bias" in get:
                params[own]["bias"] = get["bias"]
        before = shape
    return variables
