"""One run from a config: ``python -m experiments.train`` as a function."""

import os
from typing import Any

from cnn_jax.names import ConfigError
from cnn_jax.runtime import selfcheck
from cnn_jax.training import config as run_config
from cnn_jax.training import config_file, files, hosts
from cnn_jax.training.loop import Report, fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory


def train(
    config: run_config.Config | str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    report: Report | None = None,
) -> dict[str, Any]:
    """Train a network, resume a stopped run, or read the result of a finished one.

    Args:
      config: a run's config: a ConfigDict or a dict with the same keys, as the files
        in ``configs/`` return them, or the path of such a file.
      workdir: the run's directory.
      report: called with the number of steps done and the log row, or None if no
        row is due.

    Returns:
      The content of ``result.json``; errors are fractions.

    Raises:
      ConfigError: the config cannot be run, or the directory has another config.
      CheckpointError: every checkpoint is damaged.
      Diverged: loss or parameters are not finite.
      Interrupted: a signal (Ctrl-C) asked to stop; the same call resumes.
    """
    if isinstance(config, str | os.PathLike):
        path = files.local(config)
        if not path.is_file():
            raise ConfigError(f"config file {str(path)!r} does not exist")
        config = config_file.read(path)
    run_config.check(config)
    placing = run_config.as_dict(config)["parallel"]
    hosts.join(placing["hosts"], placing["host_timeout"])
    program = Program(config)
    selfcheck.check_backend()
    return fit(program, config["seed"], RunDirectory(workdir), report)
