"""The page of `experiments.why_resnets_work`: introduction, facts, sections."""

import collections
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from cnn_jax.report import Report, Section
from experiments.sections.rows import Rows

LIBRARIES = ("jax", "flax", "numpy")


def page(
    config: Mapping[str, Any],
    sections: Sequence[Section],
    runs: Sequence[Mapping[str, Any]],
    nets: Rows,
    missing: Sequence[str] = (),
    trained_here: bool = True,
) -> Report:
    """The whole report.

    Args:
      config: of the command: name, study and a section for each analysis.
      sections: what was found.
      runs: the config of each run that was looked at.
      nets: 'family', 'depth' and 'seed' of each.
      missing: runs of the study that could not be looked at.
      trained_here: whether the runs are those of the config's own study; of others,
        the page shows each different config, without its seed.

    Returns:
      The page as data.
    """
    findings = [finding for section in sections for finding in section.findings]
    verdicts = collections.Counter(finding.verdict for finding in findings)
    families = sorted({row["family"] for row in nets})
    introduction = [
        "He et al. (2015) showed that adding layers to a plain network makes its "
        "training error worse, and that identity shortcuts remove this degradation. "
        "Below, the nets of such a study are looked at from inside, as later papers "
        "did: how far gradients reach, what a block does, what its loss breaks, and "
        "what the loss around it looks like.",
        "Every yes and no on this page is computed from the numbers beside it; the "
        "papers' claims are put as questions to the nets at hand. "
        "A comparison is undecided where the mean difference of the seeds is within "
        "its standard error, or where there is but one seed.",
    ]
    if findings:
        introduction[1] += (
            f" Here {verdicts['yes']} of {len(findings)} claims hold, "
            f"{verdicts['no']} do not, and {verdicts['undecided']} are undecided."
        )
    facts = {
        "nets": f"{' and '.join(families)}; "
        f"{_listed({row['depth'] for row in nets})} layers",
        "seeds": _listed({row["seed"] for row in nets}),
        "data set": _listed({run["dataset"]["name"] for run in runs}),
        "training": f"{_listed({run['steps'] for run in runs})} steps of "
        f"{_listed({run['batch_size'] for run in runs})} images",
        "computed on": f"{jax.default_backend()}, "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES),
    }
    if missing:
        facts["left out"] = ", ".join(missing)
    analyses = {
        name: value for name, value in config.items() if name not in ("name", "study")
    }
    return Report(
        title="Why residual networks work",
        introduction=introduction,
        facts=facts,
        sections=sections,
        configs={
            **({"The study": config["study"]} if trained_here else _distinct(runs)),
            "The analyses": analyses,
        },
    )


def _distinct(runs: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The different configs among the runs', but for their seeds, by a name."""
    found: list[dict[str, Any]] = []
    for run in runs:
        shared = {key: value for key, value in run.items() if key != "seed"}
        if shared not in found:
            found.append(shared)
    if len(found) == 1:
        return {"The run": runs[0]} if len(runs) == 1 else {"The runs": found[0]}
    return {f"Run {n} of {len(found)}": run for n, run in enumerate(found, 1)}


def _listed(values: Any) -> str:
    return ", ".join(map(str, sorted(values)))
