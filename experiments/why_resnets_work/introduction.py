"""The introduction of the report: the networks analysed and how many claims hold."""

import collections
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from cnn_jax.report import claims
from cnn_jax.report.page import Report, Section
from cnn_jax.training.provenance import CONVOLUTIONS

LIBRARIES = ("jax", "flax", "numpy")


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
      trained_here: whether the runs are those of the config's study; if not, the page
        shows each distinct config.
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
        "from the numbers next to it. One-sided t tests compare means over the seeds "
        f"at the {100 * claims.LEVEL:g} % level, for each claim alone. A claim holds "
        "if the test confirms it in every case. It does not hold if the opposite test, "
        "with the level divided by the number of cases, refutes it in one. It is "
        "undecided otherwise, or if there is only one seed.",
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
    shown = {"The study": config["study"]} if trained_here else _distinct(runs)
    analyses = {key: config[key] for key in config if key not in ("name", "study")}
    return Report(
        title=f"Why residual networks work: {title}",
        introduction=introduction,
        facts=facts,
        sections=sections,
        configs={**(shown if runs else {}), "The analyses": analyses},
    )


def _distinct(
    runs: Sequence[tuple[str, int, Mapping[str, Any]]],
) -> dict[str, Mapping[str, Any]]:
    """The distinct configs of the runs, ignoring seeds, named by their nets."""
    if len(runs) == 1:
        [(family, depth, run)] = runs
        return {f"Run {family}-{depth}": run}
    found: dict[str, dict[str, Any]] = {}
    for family, depth, run in runs:
        shared = {key: run[key] for key in run if key not in ("seed", CONVOLUTIONS)}
        name = f"Runs of {family}-{depth}"
        if shared not in found.values():
            found[f"{name}, seed {run['seed']}" if name in found else name] = shared
    return found


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(set(values))))
