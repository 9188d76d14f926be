"""The same networks in other frameworks, for the benchmark to compare with."""


class NoPeer(ValueError):
    """A peer cannot run; the message gives the reason in one line."""


# Contenders of the benchmark by name (see `experiments.benchmark.contender`).
PEERS = {
    "torch": "experiments.benchmark.peers.torch_training:Torch",
    "torch.compile": "experiments.benchmark.peers.torch_training:CompiledTorch",
    "flax": "experiments.benchmark.peers.flax_training:Flax",
}
