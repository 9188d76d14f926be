"""The CIFAR-10 recipe of He et al. (2015) once more, in torch: an independent check.

    python -m tests.study.torch_degradation plain 20 --workdir=DIR

The network is `torch_nets.resnet`; data loading apart, nothing else of this package
takes part: the loop, the order of the images, the augmentation, the initial weights
and the weight decay are written here as one writes them in torch. Errors of the last
step can be compared with those of ``configs/degradation_cifar10_short.py``. Two details
differ: the last 80 images of an epoch are dropped, and the running statistics of batch
norm are updated once per group of 64 images, not once per step.

Writes ``metrics.jsonl`` (errors are fractions) and a checkpoint into the directory.
The same command resumes a run that was stopped. A GPU is used if there is one.
"""

import argparse
import json
import math
import os
import pathlib
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from cnn_jax import data
from experiments.benchmark.peers import torch_nets

BATCH, GROUP = 128, 64  # batch norm sees 64 images, as on the paper's two GPUs
RATE, MOMENTUM, DECAY = 0.1, 0.9, 1e-4
SHORTCUTS = {"plain": "none", "residual": "A"}


def network(family: str, depth: int) -> nn.Module:
    """The net of section 4.2, 6n+2 layers, with He-initialised weights."""
    sizes = [(depth - 2) // 6] * 3
    net = torch_nets.resnet(
        10, sizes, (16, 32, 64), shortcut=SHORTCUTS[family], cifar=True
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    nn.init.normal_(net.fc.weight, std=1 / math.sqrt(net.fc.in_features))
    nn.init.zeros_(net.fc.bias)
    return net.to(memory_format=torch.channels_last)


def pictures(arrays: data.Arrays) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 3, 32, 32) in 0..1 and labels (n,)."""
    images = torch.from_numpy(arrays.images).permute(0, 3, 1, 2).float() / 255
    return images, torch.from_numpy(arrays.labels).long()


def augmented(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Random windows of the images padded by 4 zeros; half of them are flipped."""
    padded = functional.pad(images, (4, 4, 4, 4))
    corners = torch.randint(9, (len(images), 2), generator=random).tolist()
    crops = torch.stack(
        [
            image[:, y : y + 32, x : x + 32]
            for image, (y, x) in zip(padded, corners, strict=True)
        ]
    )
    flipped = torch.rand(len(images), generator=random) < 0.5
    return torch.where(flipped[:, None, None, None], crops.flip(3), crops)


@torch.no_grad()
def error(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images with a wrong label, in evaluation mode."""
    net.eval()
    batches = zip(images.split(1000), labels.split(1000), strict=True)
    device = next(net.parameters()).device
    wrong = sum(
        (net(x.to(device)).argmax(1).cpu() != y).sum().item() for x, y in batches
    )
    net.train()
    return wrong / len(labels)


def main(argv: Sequence[str] | None = None) -> None:
    """Train one net."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=SHORTCUTS)
    parser.add_argument("depth", type=int)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--steps", type=int, default=16_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate_every", type=int, default=391)
    options = parser.parse_args(argv)
    options.workdir.mkdir(parents=True, exist_ok=True)
    saved = options.workdir / "checkpoint.pt"
    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(options.seed)

    cifar = data.load("cifar10", data_dir=options.data_dir)
    images, labels = pictures(cifar.train)
    test_images, test_labels = pictures(cifar.test)
    mean = images.mean(0)
    images, test_images = images - mean, test_images - mean

    # The augmentation stays on the CPU, so its random numbers are the same everywhere.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = network(options.family, options.depth).train().to(device)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
    )
    start = 0
    if saved.exists():
        state = torch.load(saved, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    per_epoch = len(images) // BATCH
    wrong = seen = 0
    for step in range(start, options.steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == start:
            shuffling = torch.Generator().manual_seed(1_000 * options.seed + epoch)
            order = torch.randperm(len(images), generator=shuffling)
        random = torch.Generator().manual_seed(options.steps * options.seed + step)
        chosen = order[place * BATCH : (place + 1) * BATCH]
        x, y = augmented(images[chosen], random), labels[chosen]
        x = x.to(device, memory_format=torch.channels_last)
        y = y.to(device)
        passed = (step >= options.steps // 2) + (step >= options.steps * 3 // 4)
        optimizer.param_groups[0]["lr"] = RATE / 10**passed
        optimizer.zero_grad(set_to_none=True)
        logits = torch.cat([net(part) for part in x.split(GROUP)])
        functional.cross_entropy(logits, y).backward()
        optimizer.step()
        wrong += (logits.argmax(1) != y).sum()
        seen += len(y)
        done = step + 1
        last = done == options.steps
        if done % options.evaluate_every == 0 or last:
            row = {
                "step": done,
                "running_train_error": int(wrong) / seen,
                "test_error": error(net, test_images, test_labels),
            }
            if last:
                row["clean_train_error"] = error(net, images, labels)
            wrong = seen = 0
            print(json.dumps(row), flush=True)
            with open(options.workdir / "metrics.jsonl", "a") as log:
                log.write(json.dumps(row) + "\n")
            state = {
                "net": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": done,
            }
            torch.save(state, saved.with_suffix(".new"))
            os.replace(saved.with_suffix(".new"), saved)


if __name__ == "__main__":
    main()
