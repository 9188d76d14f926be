"""The identity is easy to learn: layers inserted into a trained net."""

import itertools
from collections.abc import Iterator, Sequence

import jax
import matplotlib.pyplot as plt
import pandas as pd

from cnn_jax.analysis import insertion
from cnn_jax.analysis.net import Net
from cnn_jax.names import ConfigError
from cnn_jax.plots import curves
from cnn_jax.plots.style import STYLES, name_lines
from cnn_jax.report import claims, page, tables
from cnn_jax.training.run_directory import RunDirectory
from experiments.why_resnets_work import analysis, papers

# Ways of inserting: names in the figure and the table, and line styles.
WAYS = {
    "none": "nothing inserted",
    "residual": "residual, identity",
    "plain_identity": "plain, set to identity",
    "plain_he": "plain, He-initialised",
}
LOOKS = {
    "none": {"color": "#000000", "marker": "D", "linestyle": ":"},
    "residual": STYLES["residual"],
    "plain_identity": {"color": "#009E73", "marker": "^", "linestyle": "-."},
    "plain_he": STYLES["plain"],
}


def measure(
    net: Net,
    family: str,
    depth: int,
    site: str,
    blocks: Sequence[int],
    rates: Sequence[float],
    steps: Sequence[int],
) -> Iterator[analysis.Row]:
    """Measure training error after inserting layers, and after further training.

    Args:
      net: a trained net, into which layers are inserted.
      family: its family (other nets are not passed).
      depth: its depth.
      site: the module after which layers are inserted.
      blocks: numbers of inserted blocks of two layers.
      rates: constant learning rates of the further training.
      steps: steps at which the error is measured, ascending; 0 is right after the
        insertion.

    Yields:
      A row for each way of inserting (see `insertion.insert`), number of blocks, rate
      and step: 'how', 'blocks', 'rate', 'more_steps', 'train_error', 'train_loss',
      'changed_logits' (number of logits on the training set whose bits the insertion
      changed) and 'largest_change' (of a logit).
    """
    program, data = net.program, list(net.batches("train"))
    more = net.train_batches(steps[-1], start=net.step)
    # The control, with nothing inserted, runs once.
    ways = [(how, n) for how in WAYS for n in (blocks if how != "none" else (0,))]
    for how, count in ways:
        key = jax.random.key(net.seed)
        longer, variables = insertion.insert(
            net.model, net.variables, site, count, how, data, key
        )
        changed, largest = insertion.changed_logits(
            net.model, net.variables, longer, variables, data
        )
        for rate in rates:
            states = insertion.train(
                longer, variables, more, program.loss, program.optimizer, rate, key
            )
            for step, state in enumerate(itertools.chain([variables], states)):
                if step in steps:
                    found = insertion.measure(
                        longer, state, data, program.loss, program.errors
                    )
                    yield {
                        **{"how": how, "blocks": count, "rate": rate},
                        "more_steps": step,
                        "train_error": found["error"],
                        "train_loss": found["loss"],
                        "changed_logits": changed,
                        "largest_change": largest,
                    }


def wants(group: analysis.Group, settings: analysis.Settings) -> bool:
    """Whether the group is the one to insert layers into; it needs batch norm."""
    if (group.family, group.depth) != (settings["family"], settings["depth"]):
        return False
    config = RunDirectory(group.runs[0]).config() or {}
    norm = config.get("model", {}).get("norm", "batch")
    return (norm if isinstance(norm, str) else norm["name"]) != "group"


def check(settings: analysis.Settings) -> None:
    """Refuse steps that do not start at 0 or are not ascending."""
    steps = list(settings["steps"])
    if steps != sorted({0, *steps}):
        raise ConfigError(f"insertion.steps must increase from 0, got {steps}")


def with_control(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with those of the control repeated for each number of blocks."""
    none = rows["how"] == "none"
    blocks = rows.loc[~none, ["blocks"]].drop_duplicates()
    control = rows[none].drop(columns="blocks").merge(blocks, how="cross")
    return pd.concat([control, rows[~none]], ignore_index=True)


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Plot training error after the insertion, a panel per rate and block number."""
    rows = with_control(rows.assign(percent=100 * rows["train_error"]))
    steps = sorted(set(rows["more_steps"]))
    shape = rows["rate"].nunique(), rows["blocks"].nunique()
    size = (4.0 * shape[1], 2.6 * shape[0] + 1.0)
    shared = {"sharex": True, "sharey": True, "squeeze": False}
    figure, panels = plt.subplots(*shape, figsize=size, **shared)
    cases = rows.groupby(["rate", "blocks"])
    for panel, ((rate, count), own) in zip(panels.flat, cases, strict=True):
        lines = curves.draw_lines(
            *(panel, own, "how", "more_steps", "percent", LOOKS),
            **{"markersize": 4, "linewidth": 1.4},
        )
        panel.set_title(f"{2 * count} more layers, rate {rate:g}")
        panel.set_xscale("symlog", linthresh=1)
        panel.set_xticks(steps, [str(step) for step in steps])
        panel.set_yscale("symlog", linthresh=1)
        panel.set_yticks((0, 1, 10, 100), ("0", "1", "10", "100"))
        panel.minorticks_off()
        panel.set_ylim(0, 110)
    for panel in panels[:, 0]:
        panel.set_ylabel("training error, clean (%)")
    for panel in panels[-1]:
        panel.set_xlabel("steps after insertion")
    name_lines(figure, [lines[how] for how in WAYS], list(WAYS.values()))
    family, depth = rows["family"].iloc[0], rows["depth"].iloc[0]
    what = f"layers inserted into a trained {family} net of {depth} layers"
    figure.suptitle(f"{what}, {curves.seeds_of(rows)}")
    return {"insertion": figure}


def case(blocks: int, rate: float) -> str:
    """The name of a case."""
    return f"{2 * blocks} layers, rate {rate:g}"


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """Layers inserted into a trained net."""
    last = rows["more_steps"].max()
    cases = ["blocks", "rate"]
    levels = [*cases, "seed", "how", "more_steps"]
    every = with_control(rows).set_index(levels)["train_error"]
    errors = every.unstack(["how", "more_steps"])
    residual, control = errors["residual", last], errors["none", last]
    pairs = [(case(*key), own, control[key]) for key, own in residual.groupby(cases)]
    # Within the spread of the control over seeds.
    no_worse = all(own.mean() <= other.mean() + other.std() for _, own, other in pairs)
    decided = all(len(other) > 1 and other.notna().all() for *_, other in pairs)
    changed = tables.of(rows, how="residual")["changed_logits"].max()
    return page.Section(
        title="The identity is easy to learn",
        question="What do additional layers do to a trained net?",
        method=f"Layers are inserted into a trained {rows['family'].iloc[0]} net of "
        f"{rows['depth'].iloc[0]} layers, two per block: as residual blocks whose last "
        "batch-norm scale is zero, which makes them the identity; as plain layers "
        "whose kernels and batch norm are set to the identity; and as plain layers "
        "with the usual initialisation. Training then continues. The control continues "
        "without new layers.",
        sources=[papers.HE],
        figures=[
            page.Figure(
                "insertion",
                "Training error over the steps after insertion. One line per kind of "
                "inserted layers; one panel per number of layers and learning rate.",
                "Clean training error after insertion. Bands are one standard "
                "deviation.",
            )
        ],
        tables=[
            page.Table(
                f"Clean training error (%); {tables.seeds(rows)}. Logits are counted "
                "over the whole training set and all seeds.",
                (
                    *("inserted", "layers", "rate", "immediately"),
                    *(f"{last} steps later", "logits changed", "largest change"),
                ),
                [
                    (
                        *(name, str(2 * count), f"{rate:g}"),
                        tables.percent(tables.of(own, more_steps=0)["train_error"]),
                        tables.percent(tables.of(own, more_steps=last)["train_error"]),
                        str(own["changed_logits"].max()),
                        tables.short(own["largest_change"].max()),
                    )
                    for how, name in WAYS.items()
                    for (count, rate), own in tables.of(rows, how=how).groupby(cases)
                ],
            )
        ],
        findings=[
            page.Finding(
                "Inserting residual blocks does not change a single bit of any logit.",
                bool(changed == 0),
                f"{changed:.0f} logits changed.",
            ),
            page.Finding(
                f"{last} steps later, they have done no harm: the mean training error "
                "is at most one standard deviation above that of the control.",
                no_worse if decided else None,
                "; ".join(
                    f"{name}: {tables.percent(own)} vs. "
                    f"{tables.percent(other)} in the control"
                    for name, own, other in pairs
                )
                + ".",
            ),
            claims.below(
                "Plain layers with the usual initialisation raise the training error "
                "immediately.",
                *(errors["none", 0], errors["plain_he", 0]),
                *(tables.percent, case),
            ),
        ],
    )


def summary(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Training error (%) right after the insertion and at the last step."""
    last, first_rate = rows["more_steps"].max(), rows["rate"].iloc[0]
    for row in rows.itertuples():
        what = f"{row.how}, {2 * row.blocks} layers more"
        percent = 100 * row.train_error
        if row.more_steps == 0 and row.rate == first_rate:
            yield f"training error (%), {what}, at once", percent
            yield f"changed logits, {what}", row.changed_logits
        if row.more_steps == last:
            after = f"after {last} steps at {row.rate:g}"
            yield f"training error (%), {what}, {after}", percent


ANALYSIS = analysis.Analysis(
    *(measure, section, draw, summary), wants=wants, check=check, long=True, version=3
)
