"""The memory of all devices and hosts against what a run needs."""

import dataclasses

import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import hosts, memory

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Device:
    """A device that, as JAX's, reports its memory only to its own host."""

    process_index: int
    platform: str = "gpu"

    def memory_stats(self):
        assert self.process_index == hosts.index(), "not addressable"
        return {"bytes_limit": GIB}


def batch(size):
    config = {"batch_size": size, "eval_batch_size": 2, "steps_per_execution": 1}
    config |= {"steps": 1, "log_every": 1, "eval_every": 1, "checkpoint_every": 1}
    return config


@pytest.mark.parametrize("host", [0, 1])
def test_devices_of_other_hosts_count_without_being_asked(host, monkeypatch):
    monkeypatch.setattr(hosts, "index", lambda: host)
    monkeypatch.setattr(hosts, "count", lambda: 2)
    devices = [Device(0), Device(1)]
    image = (2**14, 2**14, 1)  # 1 GiB
    memory.check_images(batch(2), image, lambda key, image: image, devices)
    with pytest.raises(ConfigError, match=r"batch_size 3 needs .* 3\.0 .* 2\.0 GiB"):
        memory.check_images(batch(3), image, lambda key, image: image, devices)
    memory.check_parameters(GIB // 8, devices)
    with pytest.raises(ConfigError, match=r"config\.model: .* 2\.0 .* but 1\.0 GiB"):
        memory.check_parameters(GIB // 4, devices)  # weights and gradients


def test_processors_have_the_memory_of_their_host(monkeypatch):
    monkeypatch.setattr(memory.memory, "total", lambda: GIB)
    processors = [Device(0, "cpu")] * 8
    memory.check_parameters(GIB // 8, processors)
    with pytest.raises(ConfigError, match=r"but 1\.0 GiB"):
        memory.check_parameters(GIB // 4, processors)
    monkeypatch.setattr(memory.memory, "total", lambda: 0)  # unknown
    memory.check_parameters(GIB // 4, processors)
