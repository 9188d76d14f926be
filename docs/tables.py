"""The tables of README.md and docs/, made from the committed results and the code.

    python docs/tables.py            # rewrites the tables
    python docs/tables.py --check    # exit status 1 if one of them is out of date

A table is between ``<!-- table: NAME -->`` and ``<!-- end of table -->``. Its numbers
come from ``experiments/results/``: ``logs/RUN.jsonl`` and ``torch/NET.jsonl`` copy
the ``metrics.jsonl`` of runs; ``recipes.csv`` lists the results and times of runs.
`config_tables` makes the tables of config keys.
"""

import json
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import config_tables
import pandas as pd

from cnn_jax import models
from cnn_jax.models.__main__ import summary_of

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
MARKED = re.compile(
    r"(<!-- table: (?P<name>[\w/]+) -->\n).*?(<!-- end of table -->)", re.DOTALL
)


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; every column but the first is aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def spread(values: pd.Series, places: int = 2) -> str:
    """Mean ± sample standard deviation, or the value if there is one."""
    mean = f"{values.mean():.{places}f}"
    return f"{mean} ± {values.std():.{places}f}" if len(values) > 1 else mean


def depths(study: str) -> str:
    """Training and test error (%) over depth, by family; plain and residual first."""
    runs = pd.read_csv(RESULTS / study / "results.csv")
    first = [name for name in ("plain", "residual") if name in set(runs.family)]
    families = [*first, *sorted(set(runs.family) - set(first))]
    columns = [
        (family, column, f"{family}: {word} error (%)")
        for column, word in (("clean_train_error", "training"), ("test_error", "test"))
        for family in families
    ]
    rows = [
        [
            depth,
            *(
                spread(100 * runs[(runs.depth == depth) & (runs.family == family)][key])
                for family, key, _ in columns
            ),
        ]
        for depth in sorted(runs.depth.unique())
    ]
    return markdown(["layers", *(title for _, _, title in columns)], rows)


def last_evaluations(study: str) -> str:
    """Errors (%) at each run's last evaluation and at the last that all runs have."""
    logs = {
        tuple(path.stem.split("-")): pd.read_json(path, lines=True)
        .dropna(subset="clean_train_error")
        .set_index("step")
        for path in sorted((RESULTS / study / "logs").glob("*.jsonl"))
    }
    common = set.intersection(*(set(log.index) for log in logs.values()))
    rows = [
        [f"{family}, {depth} layers", f"{step:,}"]
        + [f"{100 * log.loc[step, f'{split}_error']:.2f}" for split in SPLITS]
        for (family, depth, _), log in logs.items()
        for step in sorted({max(common), log.index.max()})
    ]
    errors = [f"{word} error (%)" for word in SPLITS.values()]
    return markdown(["run", "step", *errors], rows)


SPLITS = {"clean_train": "training", "test": "test"}


def independent(study: str) -> str:
    """Final errors (%): the study's runs, runs on a CPU, and the torch script."""
    runs = pd.read_csv(RESULTS / study / "results.csv")
    rows = []
    for path in sorted((RESULTS / study / "torch").glob("*.jsonl")):
        family, depth = path.stem.split("-")
        own = runs[(runs.family == family) & (runs.depth == int(depth))]
        others = [
            pd.read_json(RESULTS / study / folder / path.name, lines=True).iloc[-1]
            for folder in ("cpu", "torch")
        ]
        for split, word in SPLITS.items():
            error = f"{split}_error"
            cells = [
                spread(100 * own[error]),
                *(f"{100 * o[error]:.2f}" for o in others),
            ]
            rows.append([f"{family}, {depth} layers: {word} error (%)", *cells])
    return markdown(["", "cnn_jax, GPU", "cnn_jax, CPU", "torch, GPU"], rows)


def strings(study: str) -> str:
    """String and digit error (%) of each way to read a line of digits."""
    runs = pd.read_csv(RESULTS / study / "results.csv")
    names = {
        "isolated": "recogniser of isolated digits, then Viterbi",
        "isolated_normalized": "the same, with the scores of each piece normalised",
        "system": "trained through the graph (discriminative forward)",
        "displacement": "space displacement network",
    }
    rows = [
        [names.get(system, system)]
        + [spread(100 * own[key], 1) for key in ("string_error", "digit_error")]
        for system, own in runs.groupby("system", sort=False)
    ]
    return markdown(["system", "string error (%)", "digit error (%)"], rows)


def sizes() -> str:
    """Input, parameters and multiply-accumulates of every classifier."""
    rows = []
    for name in models.NETS:
        found = summary_of(name, {})
        macs = f"{found.macs / 1e9:#.4g}"
        if name in ("resnet50", "resnet101", "resnet152"):
            strided = summary_of(name, {"bottleneck_stride": "3x3"})
            macs += f" (v1.5: {strided.macs / 1e9:#.4g})"
        size = " x ".join(map(str, found.input))
        rows.append([f"`{name}`", size, f"{found.parameters:,}", macs])
    return markdown(["network", "input", "parameters", "GMAC"], rows)


def recipes() -> str:
    """Test error (%) of the single networks."""
    found = pd.read_csv(RESULTS / "recipes.csv")
    rows = [
        [
            first.what,
            spread(100 * own.test_error)
            + (f", {len(own)} seeds" if len(own) > 1 else ", seed 0"),
            first.time,
            f"`{first.config}`",
        ]
        for _, own in found.groupby("config", sort=False)
        for first in [own.iloc[0]]
    ]
    return markdown(["network and data", "test error (%)", "time", "config"], rows)


def analyses() -> str:
    """The summary of ``why_resnets_work``, plain and residual side by side."""
    found = pd.read_csv(RESULTS / "why_resnets_work_digits" / "summary.csv")
    rows = []
    for words, quantity, depth, places in QUANTITIES:
        own = found[(found.quantity == quantity) & (found.depth == depth)]
        own = own.set_index("family")
        cells = [
            f"{own['mean'][family]:,.{places}f} ± {own['std'][family]:,.{places}f}"
            if family in own.index
            else ""
            for family in ("plain", "residual")
        ]
        rows.append([words, depth, *cells])
    return markdown(["quantity", "layers", "plain", "residual"], rows)


# Words, quantity in summary.csv, depth and decimal places.
QUANTITIES = (
    (
        "gradient norm of layer 2 over that of the last 3x3 layer, at initialisation",
        "gradient, layer 2 / last 3x3, step 0",
        56,
        1,
    ),
    (
        "cosine of input gradients at a distance of 0.01, at initialisation",
        "cosine at distance 0.01, step 0",
        56,
        2,
    ),
    (
        "test error (%) with one block removed",
        "test error (%), one block removed, mean over blocks",
        20,
        1,
    ),
    (
        "test error (%) with one block removed",
        "test error (%), one block removed, mean over blocks",
        56,
        1,
    ),
    (
        "relative change that a block makes to its input",
        "relative change, mean over blocks",
        20,
        2,
    ),
    (
        "relative change that a block makes to its input",
        "relative change, mean over blocks",
        56,
        2,
    ),
    (
        "standard deviation of layer responses, mean over layers",
        "std of responses, mean over layers",
        20,
        3,
    ),
    (
        "standard deviation of layer responses, mean over layers",
        "std of responses, mean over layers",
        56,
        3,
    ),
    ("blocks on a path, mean over all paths", "mean path length, all paths", 56, 1),
    ("the same, weighted by the gradient", "mean path length, gradient", 56, 1),
    (
        "test error (%)",
        "test error (%), death rate 0, 0 blocks removed",
        56,
        1,
    ),
    (
        "test error (%), trained with stochastic depth",
        "test error (%), death rate 0.5, 0 blocks removed",
        56,
        1,
    ),
)


def speed(file: str) -> str:
    """Milliseconds per train step, and the ratio of each peer to it."""
    steps = json.loads((RESULTS / "speed" / f"{file}.json").read_text())["steps"]
    peers = [
        peer
        for peer in dict.fromkeys(step["contender"] for step in steps)
        if peer != "cnn_jax"
    ]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for step in steps:
        row = rows.setdefault((step["net"], step["batch"], step["dtype"]), {})
        if step["contender"] == "cnn_jax":
            milliseconds = float(f"{1000 * step['step']:.3g}")
            row["ours"] = f"{milliseconds:,g}"
        elif step["ratio"]:
            low, high = step["ratio_range"]
            row[step["contender"]] = f"{step['ratio']:.2f} ({low:.2f} to {high:.2f})"
    header = ["network", "batch", "type", "ms/step", *(f"{p} / cnn_jax" for p in peers)]
    lines = [
        [*key, row.get("ours", ""), *(row.get(peer, "") for peer in peers)]
        for key, row in rows.items()
    ]
    return markdown(header, lines)


def compilation() -> str:
    """Seconds to trace, lower and compile a train step."""
    rows: dict[str, list[str]] = {}
    for file in ("compile", "compile_xla"):
        found = json.loads((RESULTS / "speed" / f"{file}.json").read_text())
        for one in found["compilations"]:
            seconds = one["trace"] + one["lower"] + one["compile"]
            rows.setdefault(one["net"], []).append(f"{seconds:.1f}")
    header = ["network", "oneDNN: seconds", "XLA: seconds"]
    return markdown(header, [[net, *cells] for net, cells in rows.items()])


TABLES: dict[str, Callable[..., str]] = {
    "depths": depths,
    "last_evaluations": last_evaluations,
    "independent": independent,
    "strings": strings,
    "sizes": sizes,
    "recipes": recipes,
    "analyses": analyses,
    "speed": speed,
    "compilation": compilation,
    **config_tables.TABLES,
}


def updated(text: str) -> str:
    """A page with its tables regenerated.

    Raises:
      KeyError: a marker names a table that is not in `TABLES`.
    """

    def replace(match: re.Match[str]) -> str:
        name, *arguments = match["name"].split("/")
        return f"{match[1]}{TABLES[name](*arguments)}{match[3]}"

    return MARKED.sub(replace, text)


def main(check: bool) -> int:
    """Rewrite the tables, or print which are out of date; return the exit status."""
    stale = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        old = path.read_text(encoding="utf-8")
        new = updated(old)
        if new != old:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(new, encoding="utf-8")
    for path in stale:
        print(f"{path}: {'out of date: run docs/tables.py' if check else 'rewritten'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
