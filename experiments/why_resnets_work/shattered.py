"""Shattered gradients: whether gradients at nearby images are similar."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
import pandas as pd

from cnn_jax.analysis import shattered
from cnn_jax.analysis.net import Net
from cnn_jax.plots import curves
from cnn_jax.report import claims, page, tables
from experiments.why_resnets_work import analysis, papers
from experiments.why_resnets_work.gradients import first_and_last


def measure(
    net: Net, images: int, distances: Sequence[float]
) -> Iterator[analysis.Row]:
    """Measure the similarity of gradients at nearby images, before and after training.

    Args:
      net: a trained net.
      images: number of training images to move; a whole batch if it has fewer.
      distances: distances to move, as fractions of an image's norm.

    Yields:
      A row for each step (0 and the last) and distance: 'step', 'distance' and
      'correlation'. Before training, batch norm uses the statistics of a batch.
    """
    [whole] = net.train_batches(1)
    batch = jax.tree.map(lambda leaf: leaf[:images], whole)
    fresh = net.at_initialisation()
    start = shattered.with_batch_statistics(net.model, fresh.variables, whole)
    far, key = np.asarray(distances, float), jax.random.key(net.seed)
    for step, variables in ((0, start), (net.step, net.variables)):
        found = shattered.input_correlations(net.model, variables, batch, far, key)
        for distance, cosine in zip(distances, found, strict=True):
            yield {"step": step, "distance": distance, "correlation": float(cosine)}


def draw(rows: pd.DataFrame, styles: analysis.Styles) -> analysis.Figures:
    """Plot the similarity of gradients at an image and at the moved image."""
    lines = first_and_last(rows, "distance", "distance / ‖image‖")
    label = "cosine of gradients"
    figure, _ = curves.family_panels(lines, "correlation", label, styles, log="x")
    figure.suptitle(f"input gradients at nearby images, {curves.seeds_of(rows)}")
    return {"shattered": figure}


def section(rows: pd.DataFrame, settings: analysis.Settings) -> page.Section:
    """Correlation of gradients at nearby inputs."""
    near = tables.of(rows, distance=rows["distance"].min())
    start = tables.per_net(tables.of(near, step=0), "correlation")
    trained = tables.per_net(near[near["step"] > 0], "correlation")
    deepest = start.index.get_level_values("depth") == rows["depth"].max()
    return page.Section(
        title="Shattered gradients",
        question="Are the gradients at nearby images similar?",
        method="The gradient of the logit of an image's own class with respect to the "
        "image, in evaluation mode (at initialisation with the batch-norm statistics "
        "of a training batch). The figure shows the cosine between this gradient and "
        "the gradient at the image moved in a random direction by a fraction of its "
        "norm, averaged over images. Shattered gradients resemble noise: they change "
        "with the slightest move.",
        sources=[papers.BALDUZZI],
        figures=[
            page.Figure(
                "shattered",
                "Cosine of gradients over the distance of the images, before and after "
                "training. One line per depth; plain and residual nets side by side.",
                "Similarity of gradients at nearby images.",
            )
        ],
        tables=[
            tables.group_table(
                near,
                "Cosine of gradients at a distance of "
                f"{rows['distance'].min():g} image norms",
                {
                    "at initialisation": (start, tables.spread),
                    "after training": (trained, tables.spread),
                },
            )
        ],
        findings=[
            claims.residual_above_plain(
                "At initialisation, the gradients of the deepest plain net are less "
                "similar than those of its residual twin.",
                start[deepest],
            ),
            claims.residual_above_plain("The same holds at every depth.", start),
        ],
    )


def summary(rows: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """Cosine of input gradients at each distance, before and after training."""
    for row in rows.itertuples():
        what = f"cosine at distance {row.distance:g}, step {row.step}"
        yield what, row.correlation


ANALYSIS = analysis.Analysis(measure, section, draw, summary)
