"""Train one network from a config file.

    python -m experiments.train --config=configs/resnet_digits.py \\
        --workdir=runs/mine --config.model.depth=32

The same command goes on with a run that was stopped, and prints the result of
one that is finished.
"""

import contextlib
import sys
from collections.abc import Sequence

from absl import flags

from cnn_jax.names import ConfigError
from cnn_jax.runtime import selfcheck
from cnn_jax.train import config as run_config
from cnn_jax.train import hosts
from cnn_jax.train.loop import fit
from cnn_jax.train.program import Program
from cnn_jax.train.run_directory import RunDirectory
from experiments import launch
from experiments.progress import single_run

# Commands of configs that are not of one run, by a key of those.
STUDIES = {
    "families": "degradation",
    "isolated": "gtn",
    "study": "why_resnets_work",
}


def define(values: flags.FlagValues) -> None:
    """The command's flags."""
    flags.DEFINE_string("workdir", "", "Directory of the run.", flag_values=values)


def body(values: flags.FlagValues) -> int:
    """Train, and print the result."""
    if not values.workdir:
        raise ConfigError("--workdir=DIR is needed")
    for key, command in STUDIES.items():
        if key in values.config:
            raise ConfigError(
                "the config is of a study, not of one run: "
                f"`python -m experiments.{command}` takes it"
            )
    run_config.check(values.config)
    placing = values.config.parallel
    hosts.join(placing.hosts, placing.host_timeout)
    program = Program(values.config)
    selfcheck.check_backend()
    directory = RunDirectory(values.workdir)
    there = hosts.is_first() and directory.result() is not None
    progress = single_run(program.config)
    with progress if hosts.is_first() else contextlib.nullcontext() as report:
        result = fit(program, values.config.seed, directory, report)
    if there:
        print(f"{values.workdir} is finished; nothing to do")
    if hosts.is_first():
        for key, value in result.items():
            text = f"{value:,}" if isinstance(value, int) else f"{value}"
            print(f"{key:>22}: {text}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return launch.run(body, define, __doc__, argv, config="")


if __name__ == "__main__":
    sys.exit(main())
