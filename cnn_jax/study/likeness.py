"""What the runs of a study must have in common, besides their configs."""

import pathlib
from collections.abc import Mapping
from typing import Any

from cnn_jax.names import ConfigError
from cnn_jax.study.directory import StudyDirectory
from cnn_jax.training import provenance
from cnn_jax.training.config_keys import differences, flatten
from cnn_jax.training.program import Program

# The parts of a config that decide a recorded value; families may differ in them.
DECIDING = {
    provenance.FINGERPRINT: ("dataset",),
    provenance.BN_IMAGES: ("batch_size", "parallel.bn_group_size"),
}


def check(program: Program, directory: pathlib.Path) -> None:
    """Refuse data, batch-norm groups or settings that earlier runs did not have.

    Args:
      program: of a run that is about to start.
      directory: the study's directory.

    Raises:
      ConfigError: names a run, the key and both values.
    """
    own, config = provenance.recorded(program), program.config
    for run_directory, _ in StudyDirectory(directory).runs():
        other = run_directory.config() or {}
        same = {
            key: not differences(_part(other, *parts), _part(config, *parts))
            for key, parts in DECIDING.items()
        }
        for key, value in own.items():
            before = other.get(key, value)
            if before != value and same.get(key, True):
                raise ConfigError(
                    f"{run_directory.path} was trained with another {key} (was "
                    f"{before!r}, is {value!r}): its results are not comparable; "
                    "choose another workdir"
                )


def _part(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The values of a config under some dotted keys or sections."""
    return {
        key: value
        for key, value in flatten(config).items()
        if any(f"{key}.".startswith(f"{part}.") for part in keys)
    }
