"""The report as one self-contained HTML file: text, tables and figures.

The page opens offline (its content-security policy forbids every request), fits a
phone screen, follows the reader's light or dark theme, and prints. Its content is
passed as data; `page.html.jinja` in this directory defines its appearance.
"""

import base64
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from cnn_jax.names import ConfigError

# Larger SVG files (surfaces of many facets), in bytes, are embedded as PNG instead.
LARGEST_SVG = 300_000


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the report."""

    name: str  # of its files, without suffix
    alternative: str  # text for readers who cannot see the figure
    caption: str

    def source(self, directory: pathlib.Path) -> str:
        """The figure as a ``data:`` URL: the SVG, or the PNG if the SVG is too large.

        Args:
          directory: directory of ``name.svg`` and ``name.png``.

        Raises:
          ConfigError: a file is missing.
        """
        drawing, pixels = (directory / f"{self.name}.{end}" for end in ("svg", "png"))
        for path in (drawing, pixels):
            if not path.is_file():
                raise ConfigError(f"the report needs {path}, which does not exist")
        small = drawing.stat().st_size <= LARGEST_SVG
        kind, path = ("svg+xml", drawing) if small else ("png", pixels)
        content = base64.b64encode(path.read_bytes()).decode()
        return f"data:image/{kind};base64,{content}"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first column names its rows, the others are formatted numbers."""

    caption: str  # with the number of seeds and the kind of spread
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim and whether the numbers support it."""

    claim: str  # a sentence that is true or false of the measurements
    holds: bool | None  # None if the measurements are inconclusive
    evidence: str  # the numbers that decide it

    @property
    def verdict(self) -> str:
        """'yes', 'no' or 'undecided'."""
        return {True: "yes", False: "no", None: "undecided"}[self.holds]


class Source(NamedTuple):
    """A paper."""

    name: str  # authors, year and title
    address: str


@dataclasses.dataclass(frozen=True)
class Section:
    """An analysis in the report."""

    title: str
    question: str = ""  # that the analysis answers
    method: str = ""
    sources: Sequence[Source] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    # None stands for a claim with nothing to compare, and is dropped.
    findings: Sequence[Finding | None] = ()
    remark: str = ""  # how the setting differs from the papers'
    failure: str = ""  # why the analysis has no results

    def __post_init__(self):
        decided = [finding for finding in self.findings if finding is not None]
        object.__setattr__(self, "findings", decided)


@dataclasses.dataclass(frozen=True)
class Report:
    """The content of the page."""

    title: str
    introduction: Sequence[str]  # paragraphs
    facts: Mapping[str, str]  # what was trained, and with which settings
    sections: Mapping[str, Section]  # by one-word name
    configs: Mapping[str, Mapping[str, Any]]  # by name, shown collapsed at the end


def render(report: Report, directory: pathlib.Path) -> str:
    """Render a report as a page.

    Args:
      report: the content.
      directory: directory of the figures.

    Returns:
      HTML, the same for the same report.

    Raises:
      ConfigError: a figure's file is missing.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    configs = {name: json.dumps(c, indent=2) for name, c in report.configs.items()}
    template = environment.get_template("page.html.jinja")
    return template.render(report=report, configs=configs, directory=directory)
