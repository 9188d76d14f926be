"""Sections on what passes through the layers: gradients, responses, changes."""

import math
import pathlib

from cnn_jax.report import Figure, Finding, Section, Table
from experiments.numbers import (
    Row,
    Values,
    ascending,
    below,
    by,
    decided,
    per_seed,
    short,
    spread,
)
from experiments.sections.papers import BALDUZZI, HE, YANG
from experiments.sections.rows import (
    Rows,
    Settings,
    depth_table,
    depths_of,
    of,
    swapped,
    twins,
)


def gradients(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """Gradient norm by layer."""
    del settings

    def growth(own: list[Row]) -> float:
        """Second layer's gradient norm over that of the last convolution."""
        ordered = sorted(own, key=lambda row: row["layer"])
        return ordered[1]["gradient_norm"] / ordered[-2]["gradient_norm"]

    start = of(rows, step=0)
    plain = depths_of(start, "plain", growth)
    smallest = min((min(values) for values in plain.values()), default=0.0)
    figures = [
        Figure(
            directory / "gradients",
            "Norm of the loss gradient at each layer on a logarithmic scale, before "
            "and after training, a line for each depth, plain beside residual.",
            "Gradient norm of the layers, before training and after it.",
        )
    ]
    if (directory / "gradients_along_training.svg").exists():
        figures.append(
            Figure(
                directory / "gradients_along_training",
                "The same along training, a line for each step, a panel for each "
                "depth and family.",
                "The same along training.",
            )
        )
    return Section(
        name="gradients",
        title="Gradient reach",
        question="Does the gradient reach the early layers, and how much of it?",
        method="Norm of the gradient of a training batch's mean loss (with the batch's "
        "own batch-norm statistics, without weight decay) by each layer's weights, "
        "averaged over batches. Growth is the second layer's norm divided by that of "
        "the last convolution (the first layer and the classifier are of other kinds); "
        "1 is even reach.",
        sources=[HE, YANG],
        figures=figures,
        tables=[
            depth_table(
                start,
                "Growth of the gradient towards the input, at initialisation",
                {
                    "growth": lambda own: spread(per_seed(own, growth)),
                },
            )
        ],
        findings=decided(
            below(
                "At initialisation the gradient grows less towards the input in the "
                "residual net than in its plain twin.",
                twins(start, growth),
            ),
            ascending(
                "In plain nets that growth rises with depth.",
                plain,
            ),
            Finding(
                "The gradient vanishes in no plain net: before training its second "
                "layer's norm is not below a tenth of the last convolution's.",
                smallest >= 0.1,
                f"The smallest growth of a plain net is {short(smallest)}.",
            )
            if plain
            else None,
        ),
        remark="He et al. state that plain nets with batch norm do not suffer from "
        "vanishing gradients; Yang et al. that theirs explode, exponentially in depth.",
    )


def shattered(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """Correlation of gradients at nearby inputs."""
    del settings
    near = min(row["distance"] for row in rows)
    start = of(rows, step=0, distance=near)
    deep = twins(of(start, depth=max(row["depth"] for row in start)), "correlation")
    return Section(
        name="shattered",
        title="Shattered gradients",
        question="Do gradients at nearby images resemble each other?",
        method="The output of an image's own class is differentiated by the image, in "
        "evaluation mode (at initialisation with a training batch's batch-norm "
        "statistics): the cosine of that gradient at the image and where the image has "
        "been moved by a fraction of its norm in a random direction, averaged over "
        "images. Gradients that resemble noise ('shattered') change wherever one "
        "looks.",
        sources=[BALDUZZI],
        figures=[
            Figure(
                directory / "shattered",
                "Cosine of gradients against the distance of the images, before and "
                "after training, a line for each depth, plain beside residual.",
                "Likeness of gradients at nearby images.",
            )
        ],
        tables=[
            depth_table(
                of(rows, distance=near),
                f"Cosine of gradients at a distance of {near:g} image norms",
                {
                    "at initialisation": lambda own: spread(
                        per_seed(of(own, step=0), "correlation")
                    ),
                    "after training": lambda own: spread(
                        per_seed([r for r in own if r["step"]], "correlation")
                    ),
                },
            )
        ],
        findings=decided(
            below(
                "At initialisation the gradients of the deepest plain net resemble "
                "each other less than those of its residual twin.",
                swapped(deep),
            ),
            below(
                "So at every depth.",
                swapped(twins(start, "correlation")),
            ),
        ),
    )


def grid(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """Autocorrelation of the derivative of random nets of one input."""
    del settings
    one = of(rows, lag=1)
    deepest = max(row["depth"] for row in one)

    def at(family: str) -> Values:
        return per_seed(of(one, family=family, depth=deepest), "autocorrelation")

    return Section(
        name="grid",
        title="Shattered gradients of random nets",
        question="Is that so in the setting of the paper, too?",
        method="The derivative of randomly initialised dense nets of a single input, "
        "on a grid; its autocorrelation tells white noise (plain nets of many layers) "
        "from a smooth function.",
        sources=[BALDUZZI],
        figures=[
            Figure(
                directory / "grid",
                "Autocorrelation against the lag, a line for each depth, a panel for "
                "plain, residual, and residual nets with scaled branches.",
                "Autocorrelation of the derivative.",
            )
        ],
        tables=[
            Table(
                "Autocorrelation at a lag of one grid point; mean ± sample standard "
                f"deviation of {len({r['seed'] for r in one})} random nets.",
                ("net", "autocorrelation"),
                [
                    (
                        f"{family}, {depth} layers",
                        spread(per_seed(own, "autocorrelation")),
                    )
                    for (family, depth), own in by(one, "family", "depth").items()
                ],
            )
        ],
        findings=decided(
            below(
                f"At {deepest} layers the plain net's derivative is less correlated "
                "than the residual one's.",
                {f"{deepest} layers": (at("plain"), at("residual"))},
            )
        ),
    )


def responses(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """Standard deviation of layer responses."""
    del settings
    residual = depths_of(rows, "residual", "std")
    falling = dict(reversed(residual.items()))
    return Section(
        name="responses",
        title="Layer responses",
        question="How strongly does each layer act?",
        method="Standard deviation of the output of each 3x3 layer after batch norm, "
        "before the non-linearity and the addition, in evaluation mode.",
        sources=[HE],
        figures=[
            Figure(
                directory / "responses",
                "Standard deviation of the responses over layers, in order and "
                "sorted, a line for each depth, plain beside residual.",
                "Layer responses in the arrangement of He et al., figure 7.",
            )
        ],
        tables=[
            depth_table(
                rows,
                "Standard deviation of responses, mean over layers",
                {"std": lambda own: spread(per_seed(own, "std"))},
            )
        ],
        findings=decided(
            below(
                "Residual nets respond less than their plain twins.", twins(rows, "std")
            ),
            ascending(
                "Deeper residual nets respond less than shallower ones (listed from "
                "the deepest).",
                falling,
            ),
        ),
        remark="The two claims are the paper's, for nets of 20 to 110 layers trained "
        "to the end of a long schedule. A plain net that has hardly been trained keeps "
        "the responses that its initialisation gave it.",
    )


def linearity(rows: Rows, directory: pathlib.Path, settings: Settings) -> Section:
    """How close blocks are to the identity."""
    del settings
    # A block of a dead net may have no image with any input.
    rows = [row for row in rows if not math.isnan(row["change"])]
    residual = depths_of(rows, "residual", "change")
    return Section(
        name="linearity",
        title="Distance from the identity",
        question="How much does a block change what passes through it?",
        method="Norm of (block output - input) over the norm of the input, mean over "
        "images, for blocks that keep the shape of their map.",
        sources=[HE],
        figures=[
            Figure(
                directory / "linearity",
                "Relative change by each block over its place in the net, a line for "
                "each depth, plain beside residual.",
                "Relative change of the signal by each block.",
            )
        ],
        tables=[
            depth_table(
                rows,
                "Relative change, mean over blocks",
                {"change": lambda own: spread(per_seed(own, "change"))},
            )
        ],
        findings=decided(
            below(
                "Residual blocks change their input less than plain ones.",
                twins(rows, "change"),
            ),
            ascending(
                "The deeper the residual net, the less a block changes (listed from "
                "the deepest).",
                dict(reversed(residual.items())),
            ),
        ),
    )
