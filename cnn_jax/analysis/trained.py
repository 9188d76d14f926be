"""Networks from run directories."""

import json
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from cnn_jax.analysis.net import Net, variables
from cnn_jax.data import sources
from cnn_jax.data.facts import Facts, Recorded
from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint, config_keys, run_name
from cnn_jax.training.checkpoint import CheckpointError
from cnn_jax.training.program import Program
from cnn_jax.training.provenance import BN_IMAGES, FINGERPRINT, RECORDED
from cnn_jax.training.run_directory import PLUGINS, RunDirectory


def program_of(
    directory: str | os.PathLike[str], data_dir: str | os.PathLike[str] = ""
) -> Program:
    """The program of a run, on one device, with the run's batch-norm groups.

    The data is opened when batches are requested; for old runs, which did not record
    the facts about their data, it is opened at once.

    Args:
      directory: the run directory.
      data_dir: current location of the data; '' for the location in the config.

    Returns:
      The program; runs that differ only in their seed can share it.

    Raises:
      ConfigError: not a run directory, or its config cannot be run here.
    """
    config = _config_of(directory)
    wanted = config.get(FINGERPRINT, "")
    config["dataset"] = dataset_of(directory, data_dir)
    facts = Facts.from_bytes(RunDirectory(directory).data())
    if facts and facts.fingerprint != wanted:
        facts = None
    return program_from(config, facts, os.fspath(directory))


def program_from(config: dict[str, Any], facts: Facts | None, owner: str) -> Program:
    """The program of a config from a run directory or a file of weights.

    Args:
      config: of the run, possibly with the values that `fit` recorded with it.
      facts: facts about its data; None to open the data instead.
      owner: the directory or file, for messages.

    Returns:
      The program, on one device.

    Raises:
      ConfigError: the config cannot be run here.
    """
    group = config.get(BN_IMAGES, config["parallel"]["bn_group_size"])
    # A log writer may be a user's class, which is not needed here.
    dropped = (PLUGINS, *RECORDED, "log")
    config = {key: config[key] for key in config if key not in dropped}
    config["parallel"] = {
        "mode": "pmap",
        "devices": 1,
        "hosts": "one",
        "host_timeout": 1,
        "bn_group_size": group,
    }
    config = _with_tuples(config)

    def open_data() -> sources.Source:
        return sources.open_source(config["dataset"])

    return Program(config, Recorded(facts, open_data, owner) if facts else None)


def dataset_of(
    directory: str | os.PathLike[str], data_dir: str | os.PathLike[str] = ""
) -> dict[str, Any]:
    """The dataset section of a run's config (see `program_of`)."""
    section = _with_tuples(_config_of(directory)["dataset"])
    return config_keys.moved(section, os.fspath(data_dir)) if data_dir else section


def data_fingerprint(directory: str | os.PathLike[str]) -> str:
    """The fingerprint of a run's training data; '' for very old runs."""
    return _config_of(directory).get(FINGERPRINT, "")


def check_data(directory: str | os.PathLike[str], source: Any) -> None:
    """Refuse data other than the run's training data.

    Args:
      directory: the run directory.
      source: the opened data.

    Raises:
      ConfigError: the fingerprints differ.
    """
    wanted = data_fingerprint(directory)
    if wanted and source.fingerprint != wanted:
        raise ConfigError(
            f"{directory} was trained on other data (fingerprint {wanted[:12]}) than "
            f"its dataset now has ({source.fingerprint[:12]}); pass the directory of "
            "the original data with --data_dir, or data_dir in the config"
        )


def check_stored(
    directories: Iterable[str], data_dir: str | os.PathLike[str] = ""
) -> None:
    """Refuse results of runs whose dataset has changed since they were trained.

    Missing data is no error, since stored results need none; it is reported on stderr.

    Args:
      directories: the run directories.
      data_dir: current location of the data; '' for the location in the configs.

    Raises:
      ConfigError: see `check_data`.
    """
    opened: dict[str, sources.Source] = {}
    for directory in dict.fromkeys(directories):
        dataset = dataset_of(directory, data_dir)
        if repr(dataset) not in opened:
            try:
                opened[repr(dataset)] = sources.open_source(dataset, 0, 1)
            except ConfigError as error:
                print(f"warning: cannot verify the data: {error}", file=sys.stderr)
                return
        check_data(directory, opened[repr(dataset)])


def _config_of(directory: str | os.PathLike[str]) -> dict[str, Any]:
    config = RunDirectory(directory).config()
    if config is None:
        raise ConfigError(f"{directory} contains no run (no config.json)")
    return config


def load(
    directory: str | os.PathLike[str],
    program: Program | None = None,
    averaged: bool = False,
) -> Net:
    """Load a run's network from its newest intact checkpoint.

    Args:
      directory: the run directory.
      program: from `program_of`, if the caller has it already.
      averaged: load the moving average of the weights (``config.ema_decay``).

    Returns:
      The network; of a finished run, the final one.

    Raises:
      ConfigError: not a run directory, its network or data is not the program's, or
        it has no moving average.
      CheckpointError: there is no checkpoint, or all are damaged.
    """
    run = RunDirectory(directory)
    program = program or program_of(directory)
    config = _config_of(directory)
    if _with_tuples(config["model"]) != _with_tuples(program.config["model"]):
        raise ConfigError(f"the network in {directory} differs from the program's")
    if averaged and not program.ema_decay:
        raise ConfigError(
            f"{directory} has no moving average of its weights (ema_decay is 0)"
        )
    check_data(directory, program.source)
    seed = config["seed"]
    template = program.initial_state(seed)
    state = _newest(run.checkpoints, template)
    family, depth = family_and_depth(program, directory)
    found = state.average if averaged else variables(state)
    return Net(family, depth, seed, int(state.step), program, found)


def family_and_depth(
    program: Program, directory: str | os.PathLike[str] = ""
) -> tuple[str, int]:
    """Family and depth of a program's network.

    Args:
      program: of the run.
      directory: the run directory, if there is one.

    Returns:
      The family: for a run of a study, the one in its name; else 'plain' or
      'residual' if the network can have shortcuts, or the model's name in the config.
      The depth: weight layers, or 0 if the network has no such field.
    """
    depth = getattr(program.model, "depth", 0)
    if not isinstance(depth, int):  # in string readers `depth` has another meaning
        depth = 0
    path = pathlib.Path(directory).absolute()
    head = run_name.parse(path.name) if path.parent.name == "runs" else None
    if head and head["depth"] == depth:
        return head["family"], depth
    shortcut = getattr(program.model, "shortcut", "")
    family = "plain" if shortcut == "none" else "residual"
    return family if shortcut else program.config["model"]["name"], depth


def fingerprint(directory: str | os.PathLike[str]) -> str:
    """The SHA-256 that identifies a run's newest checkpoint.

    It covers the step, the state and the notes saved with it. The notes include the
    elapsed time, so two runs with identical states have different fingerprints.

    Returns:
      The checksum in the file's header; '' if there is no readable checkpoint.
    """
    found = checkpoint.steps(RunDirectory(directory).checkpoints)
    if not found:
        return ""
    with open(found[-1], "rb") as file:
        try:
            return json.loads(file.readline())["sha256"]
        except (ValueError, KeyError, TypeError):
            return ""


def _newest(directory: pathlib.Path, template: Any) -> Any:
    """The newest intact state; renames nothing, since the run may be in progress."""
    complaints = []
    for path in reversed(checkpoint.steps(directory)):
        try:
            return checkpoint.read(path, template)[0]
        except CheckpointError as error:
            complaints.append(str(error))
    reason = "; ".join(complaints) or "it contains none"
    raise CheckpointError(f"no usable checkpoint in {directory}: {reason}")


def _with_tuples(value: Any) -> Any:
    """Convert JSON's lists to tuples, since a network's fields must be hashable."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
