"""Config files of the commands: find them, run them and apply command-line changes."""

import ast
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from cnn_jax import data, names
from cnn_jax.data import prepared
from cnn_jax.names import ConfigError
from cnn_jax.training import config as run_config
from cnn_jax.training import config_file as files

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
PREFIX = "--config."


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


def split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Separate ``--config.KEY=VALUE`` from the other arguments.

    If a key is repeated, its last value counts, as for any flag.

    Returns:
      The other arguments, and the values by key.

    Raises:
      ConfigError: a key without a value.
    """
    others, overrides, words = [], {}, iter(arguments)
    for word in words:
        if not word.startswith(PREFIX):
            others.append(word)
            continue
        key, equals, text = word.removeprefix(PREFIX).partition("=")
        if not equals:
            text = next(words, "--")
            if text.startswith("--"):
                raise ConfigError(f"{word} needs a value: {word}=VALUE")
        overrides[key] = text
    return others, overrides


def override(config: ConfigDict, overrides: Mapping[str, str]) -> None:
    """Change values of a config in place.

    Where a section's ``name`` changes, the fields that the new component does not
    take are dropped, with a line on stderr.

    Args:
      config: the config from a file.
      overrides: strings by key ('model.depth'), parsed as literals unless the old
        value is a string.

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
            section[last] = _value(text, section.get(last))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{PREFIX}{key}={text}: {error}") from None


def _value(text: str, old: Any) -> Any:
    if isinstance(old, str):
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


def _leave_out(section: ConfigDict, place: Sequence[str], name: str) -> None:
    """Delete the fields of a section that the newly named component does not take."""
    datasets = {name: prepared.open_set, **data.TABLE}
    table = {**run_config.TABLES, "dataset": datasets}.get(place[-1])
    if table is None or section.get("name") == name:
        return
    try:
        accepted = names.parameters(names.resolve(place[-1], name, table))
    except (TypeError, ValueError):  # the config's check reports the error
        return
    kept = {"name", "stream", *accepted}
    extra = [key for key in section if key not in kept]
    for key in extra:
        del section[key]
    if extra:
        print(
            f"config.{'.'.join(place)}: dropped {', '.join(extra)}, which "
            f"{name!r} does not take",
            file=sys.stderr,
        )


def place_of(flag: str, section: Any, where: str = "config") -> str:
    """The shallowest config key with a flag's name ('config.run.steps'), or ''."""
    if not isinstance(section, ConfigDict):
        return ""
    key = flag.lstrip("-").partition("=")[0]
    if key in section:
        return f"{where}.{key}"
    deeper = [place_of(key, section[name], f"{where}.{name}") for name in section]
    return min(filter(None, deeper), key=lambda place: place.count("."), default="")
