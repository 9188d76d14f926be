"""Train one network from a config file.

    python -m experiments.train --config=configs/resnet_digits.py \\
        --workdir=runs/mine --config.model.depth=32

The same command resumes a stopped run and prints the result of a finished one. Errors
are printed in percent and written to files as fractions.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping
from typing import Any

from cnn_jax.names import ConfigError
from cnn_jax.study.progress import single_run
from cnn_jax.training import config as run_config
from cnn_jax.training import hosts, run
from cnn_jax.training.run_directory import RunDirectory
from experiments import launch

# The command for a study's config, by a key that only such configs have.
STUDIES = {"families": "degradation", "isolated": "gtn", "study": "why_resnets_work"}


def check(config: Mapping[str, Any]) -> None:
    """Refuse a config that does not describe a single run.

    Raises:
      ConfigError: the config describes a study or cannot be run.
    """
    for key, command in STUDIES.items():
        if key in config:
            raise ConfigError(
                "this config describes a study, not a single run: "
                f"use `python -m experiments.{command}`"
            )
    run_config.check(config)


def define(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--workdir", default="", help="run directory")


@launch.command(__doc__, define, config="")
def main(values: argparse.Namespace) -> None:
    """Train and print the result."""
    if not values.workdir:
        raise ConfigError("--workdir=DIR is needed")
    check(values.config)
    config = values.config.to_dict()
    hosts.join(config["parallel"]["hosts"], config["parallel"]["host_timeout"])
    launch.advise()
    directory = RunDirectory(values.workdir)
    there = hosts.is_first() and directory.result() is not None
    progress = single_run(config)
    with progress if hosts.is_first() else contextlib.nullcontext() as report:
        result = run.train(config, values.workdir, report)
    if there:
        changed = ", ".join(directory.changed_plugins(config))
        print(
            f"{values.workdir} is finished, but {changed} has changed since; "
            "choose another --workdir to train with the new code"
            if changed
            else f"{values.workdir} is finished; nothing to do"
        )
    if hosts.is_first():
        launch.show(result)


if __name__ == "__main__":
    sys.exit(main())
