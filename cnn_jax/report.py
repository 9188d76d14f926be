"""A report as one HTML file that needs nothing else: text, tables, figures.

The page opens without network (its content-security policy forbids every request),
fits a telephone, follows the reader's light or dark theme, and prints. What it
says is given as data; `report.html.jinja` beside this file is how it looks.
"""

import base64
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from cnn_jax.names import ConfigError

# A drawing of more bytes than this (a surface of many facets) goes in as pixels.
LARGEST_SVG = 300_000


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
      path: the file without suffix; ``.svg`` and ``.png`` are beside each other.
      alternative: what it shows, for those who cannot see it.
      caption: what stands below it.
    """

    path: pathlib.Path
    alternative: str
    caption: str

    @functools.cached_property
    def source(self) -> str:
        """The picture as a ``data:`` address: the drawing, or pixels if too large.

        Raises:
          ConfigError: a file is missing.
        """
        drawing = self.path.with_name(f"{self.path.name}.svg")
        pixels = self.path.with_name(f"{self.path.name}.png")
        for path in (drawing, pixels):
            if not path.is_file():
                raise ConfigError(f"the report needs {path}, which is missing")
        small = drawing.stat().st_size <= LARGEST_SVG
        kind, path = ("svg+xml", drawing) if small else ("png", pixels)
        content = base64.b64encode(path.read_bytes()).decode()
        return f"data:image/{kind};base64,{content}"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first column names its rows, the others are numbers.

    Attributes:
      caption: what it shows, with the number of seeds and what the spread is.
      columns: the header.
      rows: cells, already formatted.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim and whether the numbers bear it out.

    Attributes:
      claim: a sentence that is true or false of the measurements.
      holds: what they say; None where they do not decide it.
      evidence: the numbers that decide it.
    """

    claim: str
    holds: bool | None
    evidence: str

    @property
    def verdict(self) -> str:
        """'yes', 'no' or 'undecided'."""
        return {True: "yes", False: "no", None: "undecided"}[self.holds]


@dataclasses.dataclass(frozen=True)
class Source:
    """A paper.

    Attributes:
      name: authors, year and place in it.
      address: where it is found.
    """

    name: str
    address: str


@dataclasses.dataclass(frozen=True)
class Section:
    """One analysis.

    Attributes:
      name: a word, the section's address in the page.
      title: its heading.
      question: what was asked.
      method: how it was measured.
      sources: the papers that this follows.
      figures: what was found, drawn.
      tables: what was found, in numbers.
      findings: what the numbers say.
      remark: where the setting differs from the papers'; may be empty.
    """

    name: str
    title: str
    question: str
    method: str
    sources: Sequence[Source] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    findings: Sequence[Finding] = ()
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """A page.

    Attributes:
      title: its heading.
      introduction: paragraphs.
      facts: name to value, what was trained and with what.
      sections: the analyses, in order.
      configs: name to config, shown folded at the end.
    """

    title: str
    introduction: Sequence[str]
    facts: Mapping[str, str]
    sections: Sequence[Section]
    configs: Mapping[str, Mapping[str, Any]]


def render(report: Report) -> str:
    """The page of a report.

    Args:
      report: what it says.

    Returns:
      HTML; the same report gives the same text.

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
    template = environment.get_template("report.html.jinja")
    return template.render(report=report, configs=configs)


def write(report: Report, path: str | os.PathLike[str]) -> None:
    """Write the page of a report to a file (see `render`)."""
    pathlib.Path(path).write_text(render(report), encoding="utf-8")
