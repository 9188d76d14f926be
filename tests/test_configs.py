"""Every config file describes a run or a study that can be built."""

import importlib
import pathlib

import pytest

from cnn_jax import models, study
from cnn_jax.training import config as run_config
from cnn_jax.training.config_keys import flatten
from experiments import gtn
from experiments.why_resnets_work import registry

FILES = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_is_complete_and_says_what_it_is(path):
    module = importlib.import_module(f"configs.{path.stem}")
    assert "python -m experiments." in module.__doc__
    config = module.get_config()
    if "families" in config:
        runs = study.expand(config)
        assert config.name == path.stem
        assert len(runs) == len(config.families) * len(config.depths) * len(
            config.seeds
        )
    elif "system" in config:
        gtn.check(config)
        assert config.name == path.stem
    elif "study" in config:
        study.expand(config.study)
        assert registry.check(config.to_dict(), []) == [
            key for key in registry.ANALYSES if key in config
        ]
        assert config.name == path.stem
    else:
        run_config.check(config)
        models.create(**config.model.to_dict(), num_classes=10)


# Values of every config: the machine decides, or the command line.
PLACES = {"devices": 0, "mode": "pmap", "hosts": "one", "host_timeout": 100}
STREAMS = {"workers": 8, "clean_images": 50_000, "statistics_images": 100_000}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_fits_machines_of_up_to_four_devices(path):
    config = importlib.import_module(f"configs.{path.stem}").get_config()
    for key, value in flatten(config.to_dict()).items():
        parent, _, last = key.rpartition(".")
        if last.endswith("batch_size"):
            assert value % 4 == 0, key
        if last.endswith("_every"):  # reports do not cost more than the training
            assert value == 0 or value >= 10, key
        if parent.endswith("parallel") and last in PLACES:
            assert value == PLACES[last], key
        if parent.endswith("stream") and last in STREAMS:
            assert value == STREAMS[last], key
        if last == "seeds" and isinstance(value, tuple):
            assert value == tuple(range(len(value))), key
        if last == "seed":
            assert value == 0, key
