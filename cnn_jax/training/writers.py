"""Writers of the training log for other programs: TensorBoard or user-defined.

``config.log.writers`` lists them by name: 'tensorboard', or ``package.module:Class``.
The log of record is always the run's ``metrics.jsonl``. At the start of each attempt
a writer receives the rows already recorded, so that a resumed run writes no point
twice.
"""

import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from cnn_jax import names

Row = Mapping[str, Any]


@runtime_checkable
class Writer(Protocol):
    """The interface of a writer, constructed as ``Class(directory, config, rows)``.

    ``directory`` is the `pathlib.Path` of the run, ``config`` its config as plain
    dicts, and ``rows`` the log rows that earlier attempts have recorded.
    """

    def write(self, row: Row) -> None:
        """Write a row of the log: 'step' and numbers by name."""

    def close(self) -> None:
        """Called when the attempt ends: finished, stopped or failed."""


class TensorBoard:
    """Scalars for TensorBoard, in ``tensorboard/`` of the run directory.

    Event files are append-only, so each attempt rewrites them from the log. This
    drops points that a killed attempt wrote after its last checkpoint.

    Args:
      directory: the run directory.
      config: of the run; not used.
      rows: the log so far.

    Raises:
      ConfigError: the extra 'tensorboard' is not installed.
    """

    def __init__(
        self, directory: pathlib.Path, config: Mapping[str, Any], rows: Sequence[Row]
    ):
        del config
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise names.ConfigError(
                "config.log.writers: 'tensorboard' needs a package that is not "
                "installed: run `pip install -e '.[tensorboard]'` in the project's "
                "folder"
            ) from error
        place = directory / "tensorboard"
        shutil.rmtree(place, ignore_errors=True)
        self._events = SummaryWriter(str(place))
        for row in rows:
            self.write(row)
        self._events.flush()

    def write(self, row: Row) -> None:
        """See `Writer`."""
        for name, value in row.items():
            if name != "step":
                self._events.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """See `Writer`."""
        self._events.close()


WRITERS: dict[str, Callable[..., Writer]] = {"tensorboard": TensorBoard}


def check(chosen: Sequence[Any]) -> None:
    """Refuse unknown writers.

    Args:
      chosen: ``config.log.writers``.

    Raises:
      ConfigError: an unknown name.
    """
    for name in chosen:
        names.resolve("writer", name, WRITERS)


def build(
    chosen: Sequence[str],
    directory: pathlib.Path,
    config: Mapping[str, Any],
    rows: Sequence[Row],
) -> list[Writer]:
    """Build the writers for one attempt at a run.

    Args:
      chosen: ``config.log.writers``.
      directory: the run directory.
      config: of the run.
      rows: the log so far.

    Returns:
      One writer per name.

    Raises:
      ConfigError: an unknown name, or a library that is not installed.
    """
    return [
        names.resolve("writer", name, WRITERS)(directory, config, rows)
        for name in chosen
    ]
