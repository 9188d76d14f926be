"""Exchange of trained networks with other programs: safetensors, StableHLO, flax NNX.

A safetensors file holds the variables and the statistics of the training images. Its
metadata holds the config and the facts about the data. This is all that
`cnn_jax.load_run` needs.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.analysis import trained
from cnn_jax.analysis.net import Net
from cnn_jax.data.facts import Facts
from cnn_jax.kernels import plain
from cnn_jax.models import weights
from cnn_jax.names import ConfigError
from cnn_jax.training.checkpoint import CheckpointError
from cnn_jax.training.config_keys import PLACES, flatten, moved

SUFFIX = ".safetensors"
DATA = "data/"  # prefix of the statistics' names
PLATFORMS = ("cpu", "cuda", "tpu")


def load_run(
    run: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] = "",
    averaged: bool = False,
) -> Net:
    """Load a trained network for prediction and analysis: ``cnn_jax.load_run``.

    Args:
      run: directory of a run, finished or still training (its newest checkpoint is
        read), or a .safetensors file from `save` or ``experiments.convert``.
      data_dir: current location of the data; '' for the location in the config. The
        data is opened only when batches are requested.
      averaged: load the moving average of the weights (``config.ema_decay``).

    Returns:
      The network (see `Net`), for use with `cnn_jax.analysis`.

    Raises:
      ConfigError: there is no such run or file, its config cannot be run here, or it
        has no moving average.
      CheckpointError: there is no checkpoint, or all are damaged.
    """
    if os.fspath(run).endswith(SUFFIX):
        if averaged:
            raise ConfigError(
                f"{run} holds one set of weights; for the moving average, export the "
                "run with --averaged"
            )
        return read(run, data_dir)
    return trained.load(run, trained.program_of(run, data_dir), averaged)


def save(net: Net, path: str | os.PathLike[str]) -> None:
    """Write a network to a .safetensors file, with its config and preprocessing.

    Args:
      net: from `load_run`.
      path: the file.

    Raises:
      ConfigError: the suffix is not .safetensors, or the file cannot be written.
    """
    named = {**net.label, "family": net.family}
    write(path, net.config, net.program.facts, net.variables, named)


def write(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    facts: Facts,
    variables: Mapping[str, Any],
    label: Mapping[str, Any],
) -> None:
    """Write a network from its parts (see `save`).

    Args:
      path: the file.
      config: a run's config; the directory of its data is not written.
      facts: facts about its data.
      variables: 'params' and 'batch_stats', on the host.
      label: 'family', 'depth', 'seed' and 'step', see `Net`.

    Raises:
      ConfigError: see `save`.
    """
    dataset = config["dataset"]
    if not flatten({"dataset": dataset}).keys().isdisjoint(PLACES):
        dataset = moved(dataset, "")
    tensors = weights.flatten(variables)
    tensors |= {DATA + name: value for name, value in facts.arrays().items()}
    metadata = {
        "config": json.dumps({**config, "dataset": dataset}),
        "data": facts.words(),
        "network": json.dumps(dict(label)),
    }
    weights.write_tensors(os.fspath(path), tensors, metadata)


def read(path: str | os.PathLike[str], data_dir: str | os.PathLike[str] = "") -> Net:
    """Read a network from a file that `save` wrote.

    Args:
      path: the file.
      data_dir: current location of the data.

    Returns:
      The network.

    Raises:
      ConfigError: there is no such file, it has no config, or the config cannot be
        run here.
      CheckpointError: its tensors do not match the network.
    """
    path = os.fspath(path)
    tensors = weights.read_tensors(path)
    words = weights.read_metadata(path)
    try:
        config, label = json.loads(words["config"]), json.loads(words["network"])
        found = [key for key in tensors if key.startswith(DATA)]
        arrays = {key.removeprefix(DATA): tensors.pop(key) for key in found}
        facts = Facts.read(words["data"], arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"weights {path!r}: the file has no config; write it with `python -m "
            "experiments.export RUN` or `python -m experiments.convert`, which add one"
        ) from error
    if data_dir:
        config["dataset"] = moved(config["dataset"], os.fspath(data_dir))
    program = trained.program_from(config, facts, path)
    variables = {"params": {}, "batch_stats": {}, **weights.unflatten(tensors)}
    expected = jax.eval_shape(
        lambda: program.model.init(
            jax.random.key(0), jnp.zeros((1, *program.image_shape)), train=False
        )
    )
    expected = {"params": {}, "batch_stats": {}, **expected}
    shapes = jax.tree.map(
        np.shape, variables, is_leaf=lambda leaf: hasattr(leaf, "shape")
    )
    if shapes != jax.tree.map(lambda leaf: leaf.shape, expected):
        raise CheckpointError(
            f"weights {path!r} do not fit the network of their config"
        )
    return Net(**label, program=program, variables=variables)


def export(net: Net) -> bytes:
    """Export a network as a StableHLO program that needs neither this package nor Flax.

    ``jax.export.deserialize(content).call(images)`` returns the logits of any number
    of raw images, uint8 (n, height, width, channels), on a CPU, GPU or TPU. The
    program contains the weights and the preprocessing.

    Args:
      net: from `load_run`.

    Returns:
      The serialized program.

    Raises:
      ConfigError: the network reads strings, or flatbuffers, needed for serialization,
        is not installed.
    """
    if net.program.facts.strings:
        raise ConfigError(
            "a network that reads strings has graphs, not logits, as output: export it "
            "as .safetensors"
        )

    def forward(images: Any) -> Any:
        prepared = net.preprocess(images)
        return net.model.apply(net.variables, prepared, train=False)

    (count,) = jax.export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((count, *net.program.facts.image_shape), jnp.uint8)
    # oneDNN convolutions are specific to this machine.
    with plain.definitions():
        made = jax.export.export(jax.jit(forward), platforms=PLATFORMS)(images)
    try:
        return bytes(made.serialize())
    except ImportError as error:
        raise ConfigError(
            "exporting StableHLO needs a package that is not installed: run `pip "
            "install -e '.[export]'` in the project's folder"
        ) from error


def to_nnx(net: Net) -> Any:
    """Convert a network to a flax NNX module, by ``flax.nnx.bridge``.

    Args:
      net: from `load_run`.

    Returns:
      An ``nnx.Module`` with the run's variables: ``module(images, train=False)``
      returns the logits of preprocessed images.
    """
    from flax import nnx

    module = nnx.bridge.ToNNX(net.model, rngs=nnx.Rngs(0))
    shown = jnp.zeros((1, *net.program.image_shape))
    module = nnx.bridge.lazy_init(module, shown, train=False)
    attributes = nnx.bridge.variables.linen_vars_to_nnx_attrs(net.variables)
    nnx.update(module, nnx.State(attributes))
    return module
