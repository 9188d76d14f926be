"""What an analysis consists of; each file that holds one ends with an `Analysis`."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import matplotlib.figure
import pandas as pd

from experiments.why_resnets_work.page import Section

Row = dict[str, Any]
Settings = Mapping[str, Any]
Figures = Mapping[str, matplotlib.figure.Figure]
# Colour and dash of each depth, the same in all figures of a study.
Styles = Mapping[int, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Group:
    """The runs of a family and depth, which differ by their seed alone.

    Attributes:
      family: the arm of the study.
      depth: weight layers.
      runs: their directories.
    """

    family: str
    depth: int
    runs: tuple[str, ...]

    @property
    def name(self) -> str:
        """As 'plain-56'."""
        return f"{self.family}-{self.depth}"


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What is measured, on which nets, and how it is shown.

    Every row that ``measure`` returns has 'family', 'depth', 'seed' and 'step';
    errors are fractions. The other functions take these rows as a table.

    Attributes:
      measure: (nets of the seeds of a group, **settings) to rows; its keyword
        arguments are the schema of the config's section.
      section: (rows of all groups, settings) to a section of the report.
      draw: (rows of all groups, colour and dash of each depth) to figures by file
        name. A figure of nets gets the study's name in front of its title.
      main_numbers: rows of one net to (quantity, value), for ``summary.csv``.
      wants: whether a group is measured, by the group and the settings.
      check: raises `ConfigError` for settings that the types let through.
      of_nets: whether it measures trained nets at all.
      has_files: ``measure`` also takes the 'directory' for files of its own.
      long: takes longer than other analyses, so it starts first.
      version: raised when its code returns other rows than before; older rows are
        then measured again.
    """

    measure: Callable[..., list[Row]]
    section: Callable[[pd.DataFrame, Settings], Section]
    draw: Callable[[pd.DataFrame, Styles], Figures] = lambda rows, styles: {}
    main_numbers: Callable[[pd.DataFrame], Iterator[tuple[str, float]]] = lambda rows: (
        iter(())
    )
    wants: Callable[[Group, Settings], bool] = lambda group, settings: True
    check: Callable[[Settings], None] = lambda settings: None
    of_nets: bool = True
    has_files: bool = False
    long: bool = False
    version: int = 1
