"""Config files: programs whose ``get_config`` makes a config."""

import pathlib
import runpy
from collections.abc import Mapping

from ml_collections import ConfigDict

from cnn_jax.names import ConfigError


def read(path: pathlib.Path, argument: str = "") -> ConfigDict:
    """The config that a file's ``get_config`` makes.

    Args:
      path: the file.
      argument: of ``get_config``; '' for none.

    Returns:
      The config, unlocked: a schema knows more keys than the file has (every field
      of a network, of a plugin), and refuses what it does not know.

    Raises:
      ConfigError: whatever it raises, or another result.
    """
    try:
        found = runpy.run_path(str(path))
        if "get_config" not in found:
            raise ConfigError("no function get_config() is in it")
        config = found["get_config"](*([argument] if argument else []))
    except Exception as error:  # the file is the user's own program
        kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        raise ConfigError(f"config {str(path)!r}: {kind}{error}") from error
    if isinstance(config, Mapping):
        config = ConfigDict(config)
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"config {str(path)!r}: get_config() returned {config!r}, not a ConfigDict"
        )
    return config.unlock()
