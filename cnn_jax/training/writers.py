"""Training logs for other programs: TensorBoard, or a class of your own.

``config.log.writers`` lists them by name: 'tensorboard', or ``package.module:Class``.
The log of the run, ``metrics.jsonl``, remains the record. A writer is told at the
start of each attempt what that record already holds, so that a run that resumes
writes no point twice.
"""

import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from cnn_jax import names

Row = Mapping[str, Any]


@runtime_checkable
class Writer(Protocol):
    """What a writer offers; it is called as ``Class(directory, config, rows)``.

    ``directory`` is the run's `pathlib.Path`, ``config`` its config as plain dicts,
    and ``rows`` are the log rows that earlier attempts have recorded.
    """

    def write(self, row: Row) -> None:
        """Take in a row of the log: 'step' and numbers by name."""

    def close(self) -> None:
        """The attempt ends: finished, stopped or failed."""


class TensorBoard:
    """Scalars for TensorBoard, in the run's directory ``tensorboard``.

    Event files can only be appended to, so each attempt writes them anew from the
    log: a point that a killed attempt wrote and lost again is not kept.

    Args:
      directory: of the run.
      config: of the run; not used.
      rows: of the log so far.

    Raises:
      ConfigError: the extra that writes event files is not installed.
    """

    def __init__(
        self, directory: pathlib.Path, config: Mapping[str, Any], rows: Sequence[Row]
    ):
        del config
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise names.ConfigError(
                "config.log.writers: 'tensorboard' needs `pip install -e "
                "'.[tensorboard]'` in the project's folder"
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
    """Refuse names of no writer.

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
    """The writers of an attempt at a run.

    Args:
      chosen: ``config.log.writers``.
      directory: of the run.
      config: of the run.
      rows: of the log so far.

    Returns:
      One for each name.

    Raises:
      ConfigError: an unknown name, or a library that is not installed.
    """
    return [
        names.resolve("writer", name, WRITERS)(directory, config, rows)
        for name in chosen
    ]
