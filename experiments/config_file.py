"""Config files on the command line: lookup and overrides."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from cnn_jax.names import ConfigError
from cnn_jax.training import config_file as files
from cnn_jax.training.config_file import PREFIX

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"


def load(name: str) -> ConfigDict:
    """Load the config that a file's ``get_config`` returns.

    Args:
      name: a path, or the name of a file in ``configs/``, with or without '.py'; an
        argument of ``get_config`` may follow after a colon.

    Returns:
      The config, unlocked. The schema accepts keys that the file omits (every field
      of a network or plugin) and rejects unknown keys.

    Raises:
      ConfigError: the file does not exist, raises an error or returns no config.
    """
    file, _, argument = name.partition(":")
    places = (pathlib.Path(file).expanduser(), CONFIGS / file, CONFIGS / f"{file}.py")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ConfigError(f"config file {name!r} does not exist; {known_configs()}")
    return files.read(path, argument)


def known_configs() -> str:
    """The files in ``configs/``, for error messages."""
    found = sorted(path.name for path in CONFIGS.glob("*.py"))
    return f"choices in {CONFIGS}: {', '.join(found)}"


def define(
    parser: argparse.ArgumentParser, default: str, arguments: Sequence[str]
) -> None:
    """Add ``--config``, and each ``--config.KEY`` of the arguments.

    The parsed ``overrides`` are pairs of key and value, in the order of the arguments.

    Args:
      parser: the parser.
      default: the default config file.
      arguments: the command line.
    """
    add = parser.add_argument_group("config").add_argument
    file = "config file: a path, or the name of a file in configs/"
    add("--config", metavar="FILE", default=default, help=file)
    change = "replace a value of the config; --config.SECTION.KEY=VALUE in a section"
    given = [word.partition("=")[0] for word in arguments if word.startswith(PREFIX)]
    for flag in dict.fromkeys([f"{PREFIX}KEY", *given]):
        add(
            flag,
            metavar="VALUE",
            dest="overrides",
            action="append",
            default=[],
            type=lambda text, flag=flag: (flag.removeprefix(PREFIX), text),
            help=change if flag == f"{PREFIX}KEY" else argparse.SUPPRESS,
        )


def key_of(flag: str, section: Any, where: str = "config") -> str:
    """The shallowest config key with a flag's name ('config.run.steps'), or ''."""
    if not isinstance(section, ConfigDict):
        return ""
    key = flag.lstrip("-").partition("=")[0]
    if key in section:
        return f"{where}.{key}"
    deeper = [key_of(key, section[name], f"{where}.{name}") for name in section]
    return min(filter(None, deeper), key=lambda found: found.count("."), default="")
