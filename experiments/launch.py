"""Start-up shared by the commands: command line, config and one-line errors.

Expected errors end with one line on stderr. The exit status is 2 for a user's mistake
or a failing disk; 1 for a run that diverged or has no usable checkpoint, and for a
backend that computes wrongly; 128 + the signal's number for a signal.
Compiled programs are cached for the next command in ~/.cache/cnn_jax/xla (see
`cnn_jax.runtime.compilation_cache`).
"""

import argparse
import codecs
import functools
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from cnn_jax import kernels, names
from cnn_jax.names import ConfigError
from cnn_jax.runtime import backend, compilation_cache, selfcheck
from cnn_jax.runtime.selfcheck import WrongBackend
from cnn_jax.training import hosts
from cnn_jax.training.checkpoint import CheckpointError
from cnn_jax.training.config_file import override
from cnn_jax.training.interrupt import Interrupted
from cnn_jax.training.loop import Diverged
from experiments import config_file

Body = Callable[[argparse.Namespace], int | None]
Define = Callable[[argparse.ArgumentParser], None]
Main = Callable[..., int]


class Parser(argparse.ArgumentParser):
    """A parser that raises `ConfigError` and whose ``--help`` prints the docstring."""

    def __init__(self, usage: str):
        super().__init__(
            usage=argparse.SUPPRESS,
            description=usage.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )

    def error(self, message: str) -> Any:
        """See `argparse.ArgumentParser.error`."""
        raise ConfigError(message)

    def unknown(self, argument: str) -> ConfigError:
        """The error for an argument that no command takes."""
        if not argument.startswith("-"):
            return ConfigError(
                f"unexpected argument {argument!r}; flags have the form --name=value"
            )
        flag = f"--{argument.lstrip('-').partition('=')[0]}"
        known = self._option_string_actions.items()
        shown = [name for name, action in known if action.help != argparse.SUPPRESS]
        return names.choices("flag", flag, shown)


def command(
    usage: str | None, define: Define, config: str | None = None
) -> Callable[[Body], Main]:
    """A decorator that makes a command's ``main(argv)`` of its body.

    ``main`` takes the arguments without the program's name, by default those of the
    process. It parses them, runs the body, reports errors in one line and returns the
    exit status.

    Args:
      usage: the command's docstring, printed by ``--help``.
      define: adds the arguments to the parser.
      config: the default config, a file in ``configs/``, for a command that takes
        ``--config=FILE`` and ``--config.key=value``; '' if the user must give one.

    Returns:
      The decorator. The body takes the parsed arguments and returns an exit status or
      None.
    """

    def decorate(body: Body) -> Main:
        @functools.wraps(body)
        def main(argv: Sequence[str] | None = None) -> int:
            codecs.register_error("in words", _in_words)
            if hasattr(sys.stdout, "reconfigure"):
                sys.stdout.reconfigure(errors="in words")
            parser = Parser(usage or "")
            define(parser)
            arguments = list(sys.argv[1:] if argv is None else argv)
            status = _run(body, parser, arguments, config)
            hosts.leave(status)
            return status

        return main

    return decorate


def _in_words(error: UnicodeError) -> tuple[str, int]:
    """A codecs error handler: replaces '±' by '+-' and other characters by '?'."""
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join("+-" if sign == "±" else "?" for sign in missing), error.end


def _run(
    body: Body, parser: Parser, arguments: Sequence[str], config: str | None
) -> int:
    """Run a command; see `command`."""
    try:
        if config is not None:
            config_file.define(parser, config, arguments)
        if {"-h", "--help"} & set(arguments):
            parser.print_help()
            return 0
        values, unknown = parser.parse_known_args(arguments)
        if config is not None:
            _load(values, unknown, parser)
        if unknown:
            raise parser.unknown(unknown[0])
        compilation_cache.enable()
        return body(values) or 0
    except (ConfigError, OSError) as error:
        return _fail(error, 2)
    except (CheckpointError, Diverged, WrongBackend) as error:
        return _fail(error, 1)
    except Interrupted as error:
        print(f"{error}; run the same command again to resume", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        hosts.abandon(130)
        return 130
    except Exception as error:
        if not hosts.joined():
            if isinstance(error, AssertionError | RuntimeError) and _no_backend():
                return _fail(_no_backend(), 2)
            raise
        if isinstance(error, jax.errors.JaxRuntimeError):
            message = f"lost the connection to another host ({error})"
            return _fail(f"{message}; run the same commands again to resume", 1)
        traceback.print_exc()  # `hosts.leave` then ends the other processes
        return 1


def _load(values: argparse.Namespace, unknown: Sequence[str], parser: Parser) -> None:
    """Replace the name of the config file by the config, with its changed values."""
    if not values.config:
        stray = f"{parser.unknown(unknown[0])}; " if unknown else ""
        raise ConfigError(
            f"{stray}--config=FILE is needed; {config_file.known_configs()}"
        )
    values.config = config_file.load(values.config)
    place = config_file.key_of(unknown[0], values.config) if unknown else ""
    if place:
        raise ConfigError(f"unknown flag {unknown[0]} (did you mean --{place}?)")
    override(values.config, dict(values.overrides))


def check_machine(workers: int = 1) -> None:
    """Before training, check that the machine computes correctly, and print advice.

    Args:
      workers: number of processes that will compute, on the same devices.

    Raises:
      WrongBackend: the machine computes wrongly.
    """
    if workers > 1:
        backend.share_memory()
    selfcheck.check_backend()
    advise()


def advise() -> None:
    """Print what would make this machine faster, if anything would."""
    if hosts.is_first() and kernels.advice():
        print(kernels.advice(), file=sys.stderr)


def listed(read: Callable[[str], Any] = str) -> Callable[[str], list[Any]]:
    """The type of a comma-separated argument: ``128,1``."""
    return lambda text: [read(word) for word in text.split(",") if word]


def at_least(least: float, read: Callable[[str], Any] = int) -> Callable[[str], Any]:
    """The type of a numeric argument of at least ``least``."""

    def number(text: str) -> Any:
        try:
            value = read(text)
        except ValueError:
            kind = "whole number" if read is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {kind}") from None
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    return number


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``, a number of processes that train or measure."""
    workers = "worker processes; 0: one per core on CPU, one on a GPU or TPU"
    parser.add_argument("--workers", type=at_least(0), default=0, help=workers)


def show(found: Mapping[str, Any]) -> None:
    """Print a command's results, one a line; errors, which are fractions, in %."""
    for key, value in found.items():
        if isinstance(value, float) and key.endswith("error"):
            text = f"{100 * value:.2f} %"
        else:
            text = f"{value:,}" if isinstance(value, int) else f"{value}"
        print(f"{key:>22}: {text}")


def _no_backend() -> str:
    """What to do if JAX finds no device of the requested platform; '' if it does."""
    try:
        jax.devices()
        return ""
    except (AssertionError, RuntimeError):  # AssertionError: the plugin is missing
        platforms = os.environ.get("JAX_PLATFORMS", "")
        return (
            f"JAX finds no device (JAX_PLATFORMS is {platforms!r}): a GPU needs "
            "`pip install -e '.[cuda]'` in the project's folder, a TPU '.[tpu]'; unset "
            "JAX_PLATFORMS to use the fastest available device"
        )


def _fail(error: Exception | str, status: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return status
