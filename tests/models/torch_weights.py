"""Random weights of torch nets, converted to the networks of this package."""

import numpy as np
import torch
from torch import nn


def randomize(net, seed=0):
    """Fan-in weights and non-trivial batch-norm statistics."""
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
    """The logits of NHWC images, as an array."""
    with torch.no_grad():
        return net(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def leaves(net, images):
    """Layers with weights, in the order in which they run, and their outputs."""
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


def lenet_variables_of(net):
    """A torch LeNet-5's weights under the names of this package's."""
    state = state_dict(net)
    params = {}
    for key, value in state.items():
        layer, name = key.split(".")
        own = {"weight": "kernel", "kernels": "kernel"}.get(name, name)
        if own == "kernel":
            value = np.moveaxis(value, 0, -1)  # F6 and the output; C3's table
            if value.ndim == 4:
                value = np.moveaxis(value, 0, 2)
        params.setdefault(layer if layer == "output" else layer.upper(), {})[own] = (
            value
        )
    return {"params": params}
