"""Config files: Python files whose ``get_config`` returns a config."""

import pathlib
import runpy
from collections.abc import Mapping

from ml_collections import ConfigDict

from cnn_jax.names import ConfigError


def read(path: pathlib.Path, argument: str = "") -> ConfigDict:
    """Read the config that a file's ``get_config`` returns.

    Args:
      path: the file.
      argument: the argument of ``get_config``; '' for none.

    Returns:
      The config, unlocked, so that keys can be added. The schema allows more keys
      than the file sets (every field of a network or plugin) and refuses unknown ones.

    Raises:
      ConfigError: the file raises an exception, has no ``get_config``, or returns
        something other than a config.
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
