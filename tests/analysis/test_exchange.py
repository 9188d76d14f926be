"""Networks exported to a file: every format gives the same predictions."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax
from cnn_jax.analysis import exchange
from cnn_jax.models import weights
from cnn_jax.names import ConfigError
from cnn_jax.training.checkpoint import CheckpointError
from tests import tiny


@pytest.fixture(scope="module")
def net(reference):
    return cnn_jax.load_run(reference.place.path)


@pytest.fixture(scope="module")
def images():
    return tiny.noise(40).test.images


@pytest.fixture(scope="module")
def logits(net, images):
    found = net.predict(images)
    assert found.std() > 1e-3, "constant: tests of it could not fail"
    return found


def test_a_file_predicts_as_the_run_and_says_what_it_is(net, images, logits, tmp_path):
    path = tmp_path / "net.safetensors"
    exchange.save(net, path)
    found = cnn_jax.load_run(path)
    np.testing.assert_array_equal(found.predict(images), logits)
    assert found.label == net.label
    assert found.config == net.config
    words = weights.read_metadata(path)
    assert json.loads(words["config"])["preprocess"] == {"name": "standardize"}
    assert json.loads(words["data"])["image_shape"] == [6, 6, 1]
    # and the data itself is opened on request
    assert sum(float(batch["mask"].sum()) for batch in found.batches("test")) == 10


@pytest.mark.parametrize(
    "section", [lambda at: at, lambda at: {"name": "digit_strings", "digits": at}]
)
def test_a_file_does_not_say_where_the_data_was(net, section, tmp_path):
    path = tmp_path / "net.safetensors"
    config = {**net.config, "dataset": section({"name": "mnist", "data_dir": "/home"})}
    exchange.write(path, config, net.program.facts, net.variables, net.label)
    stored = json.loads(weights.read_metadata(path)["config"])
    assert stored["dataset"] == section({"name": "mnist", "data_dir": ""})
    found = exchange.read(path, "/new").config["dataset"]
    assert found == section({"name": "mnist", "data_dir": "/new"})


def test_files_that_hold_no_network_are_refused_in_a_line(net, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(ConfigError, match="the file does not exist"):
        cnn_jax.load_run(path)
    weights.write_tensors(path, weights.flatten(net.variables))
    with pytest.raises(ConfigError, match="the file has no config; write it with"):
        cnn_jax.load_run(path)
    lacking = {**net.variables, "batch_stats": {}}
    facts = net.program.facts
    exchange.write(path, net.config, facts, lacking, net.label)
    with pytest.raises(CheckpointError, match="do not fit the network of their config"):
        cnn_jax.load_run(path)


class Named(nn.Module):
    """A network with a name that contains the prefix of the data's statistics."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.num_classes, name="metadata")(x.reshape(len(x), -1))


def test_a_submodule_may_have_any_name(net, tmp_path):
    path = tmp_path / "net.safetensors"
    config = {**net.config, "model": {"name": f"{__name__}:Named"}}
    dense = {"kernel": np.ones((36, 3), np.float32), "bias": np.zeros(3, np.float32)}
    variables = {"params": {"metadata": dense}}
    exchange.write(path, config, net.program.facts, variables, net.label)
    found = cnn_jax.load_run(path).variables
    np.testing.assert_array_equal(found["params"]["metadata"]["kernel"], 1)


def test_a_reader_of_strings_has_no_stablehlo(net, monkeypatch):
    facts = dataclasses.replace(net.program.facts, strings=True)
    monkeypatch.setattr(net.program, "facts", facts)
    with pytest.raises(ConfigError, match="graphs, not logits, as output"):
        exchange.export(net)


def test_stablehlo_gives_the_same_logits_of_any_number_of_images(net, images, logits):
    content = exchange.export(net)
    program = jax.export.deserialize(bytearray(content))
    assert program.platforms == ("cpu", "cuda", "tpu")
    for count in (10, 3):
        found = program.call(images[:count])
        np.testing.assert_allclose(found, logits[:count], 1e-4, 1e-5)


def test_nnx_gives_the_same_logits(net, images, logits):
    module = exchange.to_nnx(net)
    found = module(net.preprocess(jnp.asarray(images)), train=False)
    np.testing.assert_allclose(found, logits, 1e-4, 1e-5)
