"""How a command starts: flags, config file, and errors as one line.

A user's mistake or a disk that fails ends with one line on stderr and status 2, a
run that diverged or has no usable checkpoint, or a backend that computes wrongly,
with status 1, a signal with 128 + its number.
Programs that a command compiles are kept for the next one, in ~/.cache/cnn_jax/xla
(see `cnn_jax.runtime.compilation_cache`); memory that a step frees, for the next step
(see `cnn_jax.runtime.heap`).
"""

import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from absl import flags
from ml_collections import config_flags

from cnn_jax.names import ConfigError
from cnn_jax.runtime import compilation_cache
from cnn_jax.runtime.selfcheck import WrongBackend
from cnn_jax.train import hosts
from cnn_jax.train.checkpoint import CheckpointError
from cnn_jax.train.interrupt import Interrupted
from cnn_jax.train.loop import Diverged

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
CONFIG_HELP = """config:
  --config=FILE: What to run; the examples are in configs/.
  --config.KEY=VALUE: Replaces a value of the file, as --config.model.depth=32.
"""


def run(
    body: Callable[[flags.FlagValues], int],
    define: Callable[[flags.FlagValues], None],
    usage: str,
    argv: Sequence[str] | None = None,
    config: str | None = None,
) -> int:
    """Parse the command line, run the body, and turn errors into a line.

    Args:
      body: the command; gets the parsed flags, returns an exit status.
      define: declares the flags.
      usage: the command's docstring, printed by ``--help``.
      argv: arguments without the program's name; the process's own by default.
      config: the command takes ``--config=FILE`` and ``--config.key=value``; this
        file of ``configs/`` if none is given, '' if one must be.

    Returns:
      The exit status.
    """
    status = _run(body, define, usage, argv, config)
    hosts.leave(status)
    return status


def _run(
    body: Callable[[flags.FlagValues], int],
    define: Callable[[flags.FlagValues], None],
    usage: str,
    argv: Sequence[str] | None,
    config: str | None,
) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    values = flags.FlagValues()
    define(values)
    if {"-h", "--help", "-help"} & set(arguments):
        print(f"{usage.strip()}\n\n{CONFIG_HELP if config is not None else ''}")
        print(values.get_help())
        return 0
    try:
        if config is not None:
            arguments = _with_config(values, arguments, config)
        _parse(values, arguments)
        compilation_cache.enable()
        return body(values)
    except (ConfigError, OSError) as error:
        return _fail(error, 2)
    except (CheckpointError, Diverged, WrongBackend) as error:
        return _fail(error, 1)
    except Interrupted as error:
        print(f"{error}; the same command goes on from there", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except jax.errors.JaxRuntimeError as error:
        if not hosts.joined():
            raise
        message = f"another host was lost, or cannot be reached ({error})"
        return _fail(RuntimeError(f"{message}; the same commands go on"), 1)
    except Exception as error:
        if not hosts.joined():
            if isinstance(error, AssertionError | RuntimeError) and _no_backend():
                return _fail(_backend_error(), 2)
            raise
        traceback.print_exc()  # and `hosts.leave` ends the others
        return 1


def _no_backend() -> bool:
    """Whether JAX finds no device of the kind that it was told to take."""
    try:
        jax.devices()
    except (AssertionError, RuntimeError):  # AssertionError: the plugin is missing
        return True
    return False


def _backend_error() -> ConfigError:
    platforms = os.environ.get("JAX_PLATFORMS", "")
    return ConfigError(
        f"JAX finds no device (JAX_PLATFORMS is {platforms!r}): a GPU needs "
        "`pip install -e '.[cuda]'` in the project's folder, a TPU '.[tpu]'; without "
        "JAX_PLATFORMS the fastest that is there is taken"
    )


def _with_config(
    values: flags.FlagValues, arguments: list[str], default: str
) -> list[str]:
    """Declare the config flag; the arguments with the config's file in front."""
    files = [
        argument.partition("=")[2]
        for argument in arguments
        if argument.startswith(("--config=", "-config="))
    ]
    if not files and not default:
        stray = _unknown_flag(values, arguments)
        found = f"unknown flag {stray}; " if stray else ""
        raise ConfigError(f"{found}--config=FILE is needed; {_known_configs()}")
    if not files:
        arguments = [f"--config={CONFIGS / default}", *arguments]
    for path in files:
        if not pathlib.Path(path.partition(":")[0]).is_file():
            raise ConfigError(f"no config file {path!r}; {_known_configs()}")
    # New keys are let through here: the schema knows more than the file (every
    # field of a network, of a plugin), and refuses what it does not know.
    config_flags.DEFINE_config_file(
        "config",
        flag_values=values,
        sys_argv=["", *arguments],
        lock_config=False,
        accept_new_attributes=True,
    )
    return arguments


def _unknown_flag(values: flags.FlagValues, arguments: Sequence[str]) -> str:
    """The first flag that the command does not have, as '--name'; '' if none."""
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        known = name in values or name.removeprefix("no") in values
        if argument.startswith("-") and not known and not name.startswith("config."):
            return f"--{name}"
    return ""


def _place_of(key: str, section: Any, where: str = "config") -> str:
    """The shallowest place of a key in a config, as 'config.run.steps'; or ''."""
    if not isinstance(section, Mapping | ml_collections.ConfigDict):
        return ""
    if key in section:
        return f"{where}.{key}"
    deeper = [_place_of(key, section[name], f"{where}.{name}") for name in section]
    return min(filter(None, deeper), key=lambda place: place.count("."), default="")


def _parse(values: flags.FlagValues, arguments: list[str]) -> None:
    try:
        rest = values(["", *arguments])
    except (AttributeError, KeyError) as error:  # config_flags, of a section
        raise ConfigError(f"unknown config key {error.args[0]}") from None
    except flags.UnrecognizedFlagError as error:
        config = values["config"].value if "config" in values else None
        place = _place_of(error.flagname, config)
        hint = f" (did you mean --{place}?)" if place else ""
        raise ConfigError(f"{_one_line(error)}{hint}") from None
    except (flags.Error, OSError) as error:
        raise ConfigError(_one_line(error)) from None
    except (TypeError, ValueError, SyntaxError) as error:
        raise ConfigError(_one_line(error)) from None
    if rest[1:]:
        raise ConfigError(f"unexpected argument {rest[1]!r} (flags read --name=value)")


def _known_configs() -> str:
    found = sorted(path.name for path in CONFIGS.glob("*.py"))
    return f"in {CONFIGS}: {', '.join(found)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _fail(error: Exception, status: int) -> int:
    print(f"error: {_one_line(error)}", file=sys.stderr)
    return status
