"""The parts of an analysis; each analysis file ends with an `Analysis`."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib.figure
import pandas as pd

from cnn_jax import names
from cnn_jax.report.page import Section

Row = dict[str, Any]
Settings = Mapping[str, Any]
Figures = Mapping[str, matplotlib.figure.Figure]
# Colour and dash of each depth, the same in all figures of a study.
Styles = Mapping[int, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Group:
    """The runs of a family and depth, which differ only in their seed.

    Attributes:
      family: the arm of the study.
      depth: number of weight layers.
      runs: directories of the runs.
    """

    family: str
    depth: int
    runs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name, such as 'plain-56'."""
        return f"{self.family}-{self.depth}"


@dataclasses.dataclass(frozen=True)
class Analysis:
    """A measurement, the nets that it applies to, and its presentation.

    The rows of a study have 'family', 'depth', 'seed' and 'step'; errors are fractions.
    All functions but ``measure`` take them as a table.

    Attributes:
      measure: (net, **settings) to rows, whose columns are added to ``net.label``; or
        (**settings) to rows with those columns, for an analysis of no trained nets.
        Its keyword arguments are the schema of the config's section; one that is named
        'directory' receives a directory for files of its own.
      section: (rows of all groups, settings) to a section of the report.
      draw: (rows of all groups, colour and dash of each depth) to figures by file
        name. The study's name is put before the title of a figure of nets.
      summary: rows of one net to (quantity, value), for ``summary.csv``.
      wants: (group, settings) to whether the group is measured.
      check: raises `ConfigError` for settings of the right type but a wrong value.
      long: whether it takes longer than other analyses and should start first.
      version: to be increased whenever the code returns different rows; older rows
        are then measured again.
    """

    measure: Callable[..., Iterable[Row]]
    section: Callable[[pd.DataFrame, Settings], Section]
    draw: Callable[[pd.DataFrame, Styles], Figures] = lambda rows, styles: {}
    summary: Callable[[pd.DataFrame], Iterable[tuple[str, float]]] = lambda rows: ()
    wants: Callable[[Group, Settings], bool] = lambda group, settings: True
    check: Callable[[Settings], None] = lambda settings: None
    long: bool = False
    version: int = 1

    @property
    def of_nets(self) -> bool:
        """Whether it measures trained nets."""
        return "net" in names.parameters(self.measure)
