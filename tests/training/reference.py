"""A residual net, its gradients and its optimizer in NumPy, float64.

Written from the formulas, independently of the package: every function returns
its output and a function from the output's gradient to its inputs' gradients.
Layout NHWC, kernels HWIO; parameters form the same tree as in the package.
"""

import numpy as np


def conv(x, kernel, stride, pad):
    k = kernel.shape[0]
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = (x.shape[1] + 2 * pad - k) // stride + 1
    span = stride * (out - 1) + 1
    windows = [
        (i, j, np.s_[:, i : i + span : stride, j : j + span : stride])
        for i in range(k)
        for j in range(k)
    ]
    y = sum(padded[window] @ kernel[i, j] for i, j, window in windows)

    def backward(dy):
        dx, dk = np.zeros_like(padded), np.zeros_like(kernel)
        for i, j, window in windows:
            dx[window] += dy @ kernel[i, j].T
            dk[i, j] = np.einsum("nhwc,nhwd->cd", padded[window], dy)
        size = x.shape[1]
        return dx[:, pad : pad + size, pad : pad + size], dk

    return y, backward


def batch_norm(x, scale, bias, epsilon=1e-5):
    axes = (0, 1, 2)
    count = x.size / x.shape[-1]
    mean, var = x.mean(axes), x.var(axes)
    normal = (x - mean) / np.sqrt(var + epsilon)

    def backward(dy):
        dscale, dbias = (dy * normal).sum(axes), dy.sum(axes)
        dx = (dy - dbias / count - normal * dscale / count) * scale
        return dx / np.sqrt(var + epsilon), dscale, dbias

    return normal * scale + bias, backward, (mean, var * count / (count - 1))


def softmax_cross_entropy(logits, labels):
    shifted = logits - logits.max(1, keepdims=True)
    probability = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(probability[rows, labels]).mean()
    gradient = probability.copy()
    gradient[rows, labels] -= 1
    return loss, gradient / len(labels)


class Net:
    """CIFAR net of basic blocks, option A or plain: loss and gradients."""

    def __init__(self, params, blocks, residual):
        self.p, self.blocks, self.residual = params, blocks, residual
        self.grads, self.stats = {}, {}

    def conv_bn(self, x, path, conv_name, bn_name, stride):
        """Conv and BN of one layer; gradients are stored in ``self.grads``."""
        layer = self.p
        for key in path:
            layer = layer[key]
        z, conv_back = conv(x, layer[conv_name]["kernel"], stride, 1)
        bn = layer[bn_name]
        y, bn_back, self.stats[(*path, bn_name)] = batch_norm(
            z, bn["scale"], bn["bias"]
        )

        def backward(dy):
            dz, dscale, dbias = bn_back(dy)
            dx, dkernel = conv_back(dz)
            self.grads[(*path, bn_name, "scale")] = dscale
            self.grads[(*path, bn_name, "bias")] = dbias
            self.grads[(*path, conv_name, "kernel")] = dkernel
            return dx

        return y, backward

    def block(self, x, name, width, stride):
        z1, back1 = self.conv_bn(x, (name,), "conv1", "bn1", stride)
        a1 = np.maximum(z1, 0)
        z2, back2 = self.conv_bn(a1, (name,), "conv2", "bn2", 1)
        if self.residual:
            skip = x[:, ::stride, ::stride]
            extra = width - x.shape[-1]
            z2 = z2 + np.pad(skip, ((0, 0), (0, 0), (0, 0), (0, extra)))

        def backward(da):
            dz2 = da * (z2 > 0)
            dx = back1(back2(dz2) * (z1 > 0))
            if self.residual:
                dx[:, ::stride, ::stride] += dz2[..., : x.shape[-1]]
            return dx

        return np.maximum(z2, 0), backward

    def loss_and_gradients(self, images, labels, widths):
        z, stem_back = self.conv_bn(images, (), "stem_conv", "stem_bn", 1)
        x, backs = np.maximum(z, 0), []
        for stage, width in enumerate(widths, start=1):
            for index in range(1, self.blocks + 1):
                stride = 2 if stage > 1 and index == 1 else 1
                x, back = self.block(x, f"stage{stage}_block{index}", width, stride)
                backs.append(back)
        pooled = x.mean((1, 2))
        head = self.p["head"]
        loss, dlogits = softmax_cross_entropy(
            pooled @ head["kernel"] + head["bias"], labels
        )
        self.grads[("head", "kernel")] = pooled.T @ dlogits
        self.grads[("head", "bias")] = dlogits.sum(0)
        dx = np.broadcast_to(
            (dlogits @ head["kernel"].T)[:, None, None] / (x.shape[1] * x.shape[2]),
            x.shape,
        )
        for back in reversed(backs):
            dx = back(dx)
        stem_back(dx * (z > 0))
        return loss, self.grads
