"""A train step in torch, written for speed.

Images and convolutions are channels_last, and bfloat16 is autocast. On a GPU cuDNN
searches for its fastest kernels, and float32 products may use TF32, as jax's do.
"""

import torch
from torch.nn import functional

from cnn_jax.runtime import backend
from experiments.benchmark.case import MAP_J, MOMENTUM, RATE, WEIGHT_DECAY, Case
from experiments.benchmark.peers import NoPeer
from experiments.benchmark.peers.torch_nets import twin_of


class Torch:
    """torch in eager mode, on one device: CUDA's if the case is for a GPU.

    Raises:
      NoPeer: several devices, a network that is not in `torch_nets`, or a torch
        that does not find the GPU.
    """

    def __init__(self, case: Case):
        if case.devices > 1:
            raise NoPeer("the torch step supports one device only")
        self.penalties = case.loss == "map"
        self.low_precision = case.dtype == "bfloat16"
        self.device = torch.device("cuda" if case.platform == "gpu" else "cpu")
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise NoPeer("the installed torch has no access to the GPU")
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        else:
            torch.set_num_threads(len(backend.cores()))  # as many as XLA uses
        torch.manual_seed(0)
        net = twin_of(case.module(), case.image[2])
        self.parameters = sum(p.numel() for p in net.parameters())
        self.net = net.to(self.device, memory_format=torch.channels_last).train()
        sgd = {"lr": RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
        self.optimizer = torch.optim.SGD(self.net.parameters(), **sgd)
        images, labels = case.arrays()
        # torch's channels_last format is NHWC memory with NCHW indices.
        self.images = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(labels).long().to(self.device)

    def run(self, steps: int) -> float:
        """See `experiments.benchmark.contender.Contender.run`."""
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.objective()
            loss.backward()
            self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    def objective(self) -> torch.Tensor:
        """The mean loss of the batch."""
        low = self.low_precision
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            logits = self.net(self.images).float()
        if self.penalties:
            rubbish = logits.new_full((len(logits), 1), -MAP_J)
            logits = torch.cat([logits, rubbish], 1)
        return functional.cross_entropy(logits, self.labels)

    def device_memory(self) -> int | None:
        """See `experiments.benchmark.contender.Contender.device_memory`."""
        if self.device.type == "cpu":
            return None
        return torch.cuda.max_memory_allocated()


class CompiledTorch(Torch):
    """torch with network, loss and backward pass compiled by `torch.compile`."""

    def __init__(self, case: Case):
        super().__init__(case)
        self.objective = torch.compile(self.objective)
