"""The networks in other people's frameworks, for the benchmark to run beside ours."""


class NoPeer(ValueError):
    """A peer cannot be run; the message says why, in one line."""


# Contenders of the benchmark by name (see `experiments.benchmark.contender`).
PEERS = {
    "torch": "experiments.benchmark.peers.torch_training:Torch",
    "torch.compile": "experiments.benchmark.peers.torch_training:CompiledTorch",
    "flax": "experiments.benchmark.peers.flax_training:Flax",
}
