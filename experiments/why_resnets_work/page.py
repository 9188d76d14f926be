"""The report as one self-contained HTML file: text, tables and figures.

The page opens offline (its content-security policy forbids every request), fits a
phone screen, follows the reader's light or dark theme, and prints. Its content is
passed as data; `page.html.jinja` in this directory defines its appearance.
"""

import base64
import collections
import dataclasses
import importlib.metadata
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jinja2

from cnn_jax.names import ConfigError

# Larger SVG files (surfaces of many facets), in bytes, are embedded as PNG instead.
LARGEST_SVG = 300_000
LIBRARIES = ("jax", "flax", "numpy")


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


def compose(
    title: str,
    config: Mapping[str, Any],
    sections: Mapping[str, Section],
    runs: Sequence[tuple[str, int, Mapping[str, Any]]],
    missing: Sequence[str] = (),
    trained_here: bool = True,
) -> Report:
    """Compose the whole report.

    Args:
      title: name of the study or run.
      config: the command's config: name, study and a section for each analysis.
      sections: the results.
      runs: family, depth and config of each analysed run.
      missing: runs of the study that could not be analysed.
      trained_here: whether the runs belong to the config's own study; for other runs,
        the page shows each distinct config, without its seed.

    Returns:
      The content of the page.
    """
    findings = [f for section in sections.values() for f in section.findings]
    verdicts = collections.Counter(finding.verdict for finding in findings)
    introduction = [
        "He et al. (2015) showed that adding layers to a plain network raises its "
        "training error, and that identity shortcuts remove this degradation. This "
        "report analyses the nets of such a study with the methods of later papers: "
        "how far gradients reach, how much a block changes its input, how much damage "
        "its removal does, and what the loss landscape looks like.",
        "The report tests the papers' claims on these nets. Every verdict is computed "
        "from the numbers next to it. A comparison is undecided if the mean difference "
        "over the seeds is within its standard error, or if there is only one seed.",
    ]
    if findings:
        introduction[1] += (
            f" Here {verdicts['yes']} of {len(findings)} claims hold, "
            f"{verdicts['no']} do not, and {verdicts['undecided']} are undecided."
        )
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    facts = {"computed on": f"{jax.default_backend()}, {', '.join(libraries)}"}
    if runs:
        families, depths, configs = zip(*runs, strict=True)
        facts = {
            "nets": f"{' and '.join(sorted(set(families)))}; {_listed(depths)} layers",
            "seeds": _listed(run["seed"] for run in configs),
            "dataset": _listed(run["dataset"]["name"] for run in configs),
            "training": f"{_listed(run['steps'] for run in configs)} steps of "
            f"{_listed(run['batch_size'] for run in configs)} images",
            **facts,
        }
    if missing:
        facts["skipped runs"] = ", ".join(missing)
    if not runs:
        shown = {}
    elif trained_here:
        shown = {"The study": config["study"]}
    else:
        shown = _distinct(runs)
    analyses = {
        name: value for name, value in config.items() if name not in ("name", "study")
    }
    return Report(
        title=f"Why residual networks work: {title}",
        introduction=introduction,
        facts=facts,
        sections=sections,
        configs={**shown, "The analyses": analyses},
    )


def _distinct(
    runs: Sequence[tuple[str, int, Mapping[str, Any]]],
) -> dict[str, Mapping[str, Any]]:
    """The distinct configs of the runs, ignoring seeds, named by their nets."""
    found: list[tuple[str, dict[str, Any]]] = []
    for family, depth, run in runs:
        shared = {key: value for key, value in run.items() if key != "seed"}
        if shared not in [config for _, config in found]:
            found.append((f"{family}-{depth}", shared))
    if len(runs) == 1:
        return {f"Run {found[0][0]}": runs[0][2]}
    return {f"Runs of {name}": config for name, config in found}


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(set(values))))
