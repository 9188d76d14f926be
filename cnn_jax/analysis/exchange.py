"""Networks in one file, for others: safetensors, StableHLO, and flax NNX.

A safetensors file holds the variables, the statistics of the training images, and in
its metadata the config and what the data was: all that `cnn_jax.load_run` needs.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.analysis import trained
from cnn_jax.analysis.trained import Net
from cnn_jax.data.facts import Facts
from cnn_jax.kernels import plain
from cnn_jax.models import weights
from cnn_jax.names import ConfigError
from cnn_jax.training.checkpoint import CheckpointError

SUFFIX = ".safetensors"
DATA = "data/"  # before the names of the statistics
PLATFORMS = ("cpu", "cuda", "tpu")


def load_run(run: str | os.PathLike[str], data_dir: str | os.PathLike[str] = "") -> Net:
    """A trained network, to predict with and to look into: ``cnn_jax.load_run``.

    Args:
      run: directory of a run, finished or still training (its newest checkpoint
        counts); or a .safetensors file that `save` or ``experiments.convert`` wrote.
      data_dir: where its data is now; '' for where the run had it. Only what asks for
        batches opens it.

    Returns:
      The network (see `Net`); the analyses of `cnn_jax.analysis` take it.

    Raises:
      ConfigError: no run or no such file, or one whose config cannot be run here.
      CheckpointError: there is no checkpoint, or none is whole.
    """
    if os.fspath(run).endswith(SUFFIX):
        return read(run, data_dir)
    return trained.load(run, trained.program_of(run, data_dir))


def save(net: Net, path: str | os.PathLike[str]) -> None:
    """Write a network to a .safetensors file, with its config and preprocessing.

    Args:
      net: from `load_run`.
      path: the file.

    Raises:
      ConfigError: another suffix, or a place that cannot be written.
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
      config: of a run; where its data is, is not written.
      facts: of its data.
      variables: 'params' and 'batch_stats', on the host.
      label: 'family', 'depth', 'seed' and 'step', as `Net` has them.

    Raises:
      ConfigError: as `save`.
    """
    dataset = dict(config["dataset"])
    if "data_dir" in dataset:
        dataset["data_dir"] = ""
    tensors = weights.flatten(variables)
    tensors |= {DATA + name: value for name, value in facts.arrays().items()}
    metadata = {
        "config": json.dumps({**config, "dataset": dataset}),
        "data": facts.words(),
        "network": json.dumps(dict(label)),
    }
    weights.write_tensors(os.fspath(path), tensors, metadata)


def read(path: str | os.PathLike[str], data_dir: str | os.PathLike[str] = "") -> Net:
    """The network of a file that `save` wrote.

    Args:
      path: the file.
      data_dir: where its data is.

    Returns:
      The network.

    Raises:
      ConfigError: no such file, another one, or one that cannot be used here.
      CheckpointError: its tensors are not those of the network.
    """
    path = os.fspath(path)
    tensors = weights.read_tensors(path)
    words = weights.read_metadata(path)
    try:
        config, label = json.loads(words["config"]), json.loads(words["network"])
        kept = {key.removeprefix(DATA): tensors[key] for key in tensors if DATA in key}
        facts = Facts.read(words["data"], kept)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"weights {path!r}: no config is with them; `python -m experiments.export "
            "RUN` and `python -m experiments.convert` write files that have one"
        ) from error
    if data_dir:
        config["dataset"]["data_dir"] = os.fspath(data_dir)
    program = trained.program_from(config, facts, path)
    own = {key: tensors[key] for key in tensors if DATA not in key}
    variables = {"params": {}, "batch_stats": {}, **weights.unflatten(own)}
    expected = jax.eval_shape(
        lambda: program.model.init(
            jax.random.key(0), jnp.zeros((1, *program.image_shape)), train=False
        )
    )
    expected = {"params": {}, "batch_stats": {}, **expected}
    found = jax.tree.map(
        np.shape, variables, is_leaf=lambda leaf: hasattr(leaf, "shape")
    )
    if found != jax.tree.map(lambda leaf: leaf.shape, expected):
        raise CheckpointError(f"weights {path!r} are not those of the network in it")
    return Net(**label, program=program, variables=variables)


def export(net: Net) -> bytes:
    """A network as a StableHLO program, which needs neither this package nor Flax.

    ``jax.export.deserialize(content).call(images)`` gives the logits of any number of
    raw images, uint8 (n, height, width, channels), on a CPU, GPU or TPU; the weights
    and the preprocessing are part of the program.

    Args:
      net: from `load_run`.

    Returns:
      The program, serialized.

    Raises:
      ConfigError: flatbuffers, with which it is written, is not installed.
    """

    def forward(images: Any) -> Any:
        prepared = net.preprocess(images)
        return net.model.apply(net.variables, prepared, train=False)

    (count,) = jax.export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((count, *net.program.facts.image_shape), jnp.uint8)
    # Convolutions of oneDNN are of this machine alone.
    with plain.definitions():
        made = jax.export.export(jax.jit(forward), platforms=PLATFORMS)(images)
    try:
        return bytes(made.serialize())
    except ImportError as error:
        raise ConfigError(
            "a StableHLO program needs a package that is not installed: `pip install "
            "-e '.[export]'` in the project's folder"
        ) from error


def to_nnx(net: Net) -> Any:
    """A network as a module of flax NNX, by ``flax.nnx.bridge``.

    Args:
      net: from `load_run`.

    Returns:
      An ``nnx.Module`` with the run's variables: ``module(images, train=False)`` of
      preprocessed images gives logits.
    """
    from flax import nnx

    module = nnx.bridge.ToNNX(net.model, rngs=nnx.Rngs(0))
    shown = jnp.zeros((1, *net.program.image_shape))
    module = nnx.bridge.lazy_init(module, shown, train=False)
    attributes = nnx.bridge.variables.linen_vars_to_nnx_attrs(net.variables)
    nnx.update(module, nnx.State(attributes))
    return module
