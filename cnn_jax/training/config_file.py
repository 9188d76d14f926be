"""Config files: Python files whose ``get_config`` returns a config; changed values."""

import ast
import pathlib
import runpy
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from cnn_jax import data, names
from cnn_jax.data import prepared
from cnn_jax.names import ConfigError
from cnn_jax.training import config as run_config

PREFIX = "--config."  # of a changed value on the command line


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
            raise ConfigError("the file has no function get_config()")
        config = found["get_config"](*([argument] if argument else []))
        if isinstance(config, Mapping):
            config = ConfigDict(config)
    except Exception as error:  # the file is the user's own program
        kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        raise ConfigError(f"config {str(path)!r}: {kind}{error}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"config {str(path)!r}: get_config() must return a ConfigDict, got "
            f"{config!r}"
        )
    return config.unlock()


def override(config: ConfigDict, overrides: Mapping[str, str]) -> None:
    """Change values of a config in place.

    Where a section's ``name`` changes, the fields that the new component does not
    take are dropped, with a line on stderr.

    Args:
      config: the config from a file.
      overrides: strings by key ('model.depth'), parsed as literals unless the old
        value is a string. A section ("{'name': ...}") may replace a name.

    Raises:
      ConfigError: no such section, or a value whose type differs from the file's.
    """
    # Names come first: fields given with a new name belong to the new component.
    for key in sorted(overrides, key=lambda key: not key.endswith(".name")):
        text, section = overrides[key], config
        *sections, last = key.split(".")
        for name in sections:
            if name not in section:
                raise names.choices("config key", name, list(section))
            section = section[name]
            if not isinstance(section, ConfigDict):
                raise ConfigError(f"{PREFIX}{key}: {name!r} is not a section")
        if last == "name" and sections:
            _leave_out(section, sections, text)
        try:
            old = section.get(last)
            value = _value(text, old)
            if isinstance(old, str) and isinstance(value, dict):
                del section[last]  # a ConfigDict keeps the types of its values
            section[last] = value
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{PREFIX}{key}={text}: {error}") from None


def _value(text: str, old: Any) -> Any:
    if isinstance(old, str) and not text.startswith("{"):
        return text
    if isinstance(old, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if type(old) is float:
        return float(text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = text
    if isinstance(old, tuple | list) and not isinstance(value, tuple | list):
        raise ConfigError(
            f"expected a tuple: write '({value!r},)' for the single value {value!r}, "
            "'(0, 1, 2)' for three values"
        )
    if isinstance(old, ConfigDict) and not isinstance(value, dict):
        raise ConfigError("expected a section, such as \"{'name': 'sgd'}\"")
    return value


def _leave_out(section: ConfigDict, keys: Sequence[str], name: str) -> None:
    """Delete the fields of a section that the newly named component does not take."""
    datasets = {name: prepared.open_set, **data.TABLE}
    table = {**run_config.TABLES, "dataset": datasets}.get(keys[-1])
    if table is None or section.get("name") == name:
        return
    try:
        accepted = names.parameters(names.resolve(keys[-1], name, table))
    except (TypeError, ValueError):  # the config's check reports the error
        return
    kept = {"name", "stream", *accepted}
    extra = [key for key in section if key not in kept]
    for key in extra:
        del section[key]
    if extra:
        print(
            f"config.{'.'.join(keys)}: dropped {', '.join(extra)}, which "
            f"{name!r} does not take",
            file=sys.stderr,
        )
