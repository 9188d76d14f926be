"""Graph transformer networks: whole lines of digits, read through LeNet-5.

LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to
document recognition", sections IV to VII. Both networks take lines of digits and
output a recognition graph (see `cnn_jax.graphs`). Its paths are the readings of the
line; its arcs carry the recogniser's class scores:

    `OverSegmentation`    candidate cuts > segmentation graph > pieces of the
                          line > LeNet-5 on each > recognition graph (V)
    `SpaceDisplacement`   LeNet-5 over the whole line in one pass > a graph with
                          one arc per class at each position (VII)

The labels contain no segmentation: training makes the paths that spell the right
string score best of all (`cnn_jax.training.strings`).
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cnn_jax import names
from cnn_jax.graphs import Graph
from cnn_jax.models.layers import Images, check_fields
from cnn_jax.models.lenet import LeNet5
from cnn_jax.models.segmentation import (
    Line,
    Segmentation,
    cut_out,
    cut_strength,
    select_cuts,
    spans,
)

RECOGNIZERS = {
    "lenet5": LeNet5,
    "lenet5_modern": partial(
        LeNet5, activation="relu", subsampling="max", c3="dense", output="linear"
    ),
}

# In a batch of this many pieces, lines of many pieces and lines of few even out.
EVEN = 384


class OverSegmentation(nn.Module):
    """The heuristic over-segmentation system (section V).

    A line has more cuts than digits: in the gaps and where its ink is thin. A piece
    lies between two cuts that are at most ``pieces`` apart.

    Attributes:
      num_classes: classes of the recogniser.
      recognizer: 'lenet5', 'lenet5_modern' or ``package.module:Class``: a module
        from (n, field, field, 1) to class scores, where higher is better.
      cuts: maximum number of cuts per line; the weakest beyond it are dropped.
      pieces: maximum number of intervals between adjacent cuts that form one digit.
      average: pieces per line to recognise, averaged over the batch of a device (see
        `room`). Of pieces beyond it, those of the most intervals are dropped, of the
        last lines first: their arcs score minus infinity, so no reading uses them.
      field: side of the recogniser's square image; the height of a line.
      least_width: columns of the narrowest piece.
      most_width: columns of the widest piece.
      threshold: grey level above which a pixel is ink, in units of the input.
      radius: a thin column has the least ink within this many columns on each side,
        at least 1.
      reach: columns on each side whose ink a thin column is compared with, at least 1.
      depth: minimum share by which a thin column has less ink than those.
      background: grey level of the paper around a piece.
      normalize: turn the scores of each piece into log posteriors, whose exponentials
        sum to 1 even for a piece that is no digit. The paper warns against this
        (section VI-E): a graph should be normalised as a whole.

    Raises:
      ConfigError: on construction, an invalid field.
    """

    num_classes: int = 10
    recognizer: str = "lenet5"
    cuts: int = 14
    pieces: int = 4
    average: int = 16
    field: int = 32
    least_width: int = 2
    most_width: int = 28
    threshold: float = 0.22
    radius: int = 1
    reach: int = 8
    depth: float = 0.05
    background: float = -0.1
    normalize: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_fields(self)
        if self.cuts < 2 or self.pieces < 1:
            raise names.ConfigError(
                f"OverSegmentation: a digit needs 2 cuts and 1 piece, got cuts "
                f"{self.cuts}, pieces {self.pieces}"
            )
        if not 1 <= self.least_width <= self.most_width <= self.field:
            raise names.ConfigError(
                f"OverSegmentation: least_width {self.least_width}, most_width "
                f"{self.most_width} and field {self.field} must not decrease"
            )
        if min(self.radius, self.reach) < 1:
            raise names.ConfigError(
                f"OverSegmentation: radius and reach must be at least 1 column, got "
                f"radius {self.radius}, reach {self.reach}"
            )
        names.resolve("recognizer", self.recognizer, RECOGNIZERS)

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Graph:
        """The recognition graphs of a batch of lines.

        Args:
          x: lines (n, field, width, 1), background -0.1 and ink 1.175.
          train: passed to the recogniser.

        Returns:
          A graph of ``cuts`` nodes with ``pieces`` x ``num_classes`` arcs each; its
          arrays have a leading batch axis.

        Raises:
          ConfigError: lines of another height or number of channels.
        """
        check_line(self, x, self.field)
        found = self.segment(x)
        line, node, piece = self._slots(found.present)
        images = cut_out(
            x[:, :, :, 0],
            line,
            found.span[line, node, piece],
            self.field,
            self.background,
        )
        # All pieces of all lines in one call.
        net = names.resolve("recognizer", self.recognizer, RECOGNIZERS)
        scores = net(num_classes=self.num_classes, name="recognizer")(
            images[..., None], train=train
        )
        if self.normalize:
            scores = jax.nn.log_softmax(scores)
        table = jnp.full((*found.present.shape, self.num_classes), -jnp.inf)
        scores = table.at[line, node, piece].set(scores.astype(jnp.float32))
        return jax.vmap(recognition_graph)(found, scores)

    def _slots(self, present: Bool[Array, "n cuts pieces"]) -> tuple[Array, ...]:
        """Line, cut and index of each piece to recognise, fewest intervals first."""
        n, cuts, pieces = present.shape
        order = present.transpose(2, 0, 1).ravel()
        slots = jnp.argsort(~order, stable=True)[: self.room(n)]
        piece, line, node = jnp.unravel_index(slots, (pieces, n, cuts))
        return line, node, piece

    @nn.nowrap
    def room(self, n: int) -> int:
        """The number of pieces recognised in ``n`` lines.

        ``n * average``, and room for one full line more up to ``EVEN`` pieces, because
        the average over few lines varies more.
        """
        full, even = self.cuts * self.pieces, n * self.average
        return min(n * full, max(even, full, min(even + full, EVEN)))

    def segment(self, x: Images) -> Segmentation:
        """The segmentation graphs of a batch of lines (no parameters)."""
        return jax.vmap(self._segment_line)(x[:, :, :, 0])

    def _segment_line(self, line: Line) -> Segmentation:
        profile = jnp.maximum(line - self.threshold, 0.0).sum(0)
        strength = cut_strength(profile, self.radius, self.reach, self.depth)
        cut, count = select_cuts(profile > 0, strength, self.cuts)
        span, present = spans(profile > 0, cut, count, self.pieces)
        width = span[..., 1] - span[..., 0]
        fits = (width >= self.least_width) & (width <= self.most_width)
        return Segmentation(cut=cut, count=count, span=span, present=present & fits)


class SpaceDisplacement(nn.Module):
    """LeNet-5 swept over the line, and the graph of its scores (section VII).

    Attributes:
      num_classes: classes; the extra last label is "none of the above".
      recognizer: 'lenet5_modern' or ``package.module:Class``: a module with a
        field ``line`` from (n, field, width, 1) to scores (n, positions, labels).
      field: height of a line.
      margin: columns of background added before and after the line.
      background: grey level of the paper.

    Raises:
      ConfigError: on construction, an invalid field.
    """

    num_classes: int = 10
    recognizer: str = "lenet5_modern"
    field: int = 32
    margin: int = 12
    background: float = -0.1

    def __post_init__(self):
        super().__post_init__()
        check_fields(self)
        if self.margin < 0:
            raise names.ConfigError(
                f"SpaceDisplacement: margin {self.margin} is negative"
            )
        names.resolve("recognizer", self.recognizer, RECOGNIZERS)

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Graph:
        """The recognition graphs of a batch of lines.

        Args:
          x: lines (n, field, width, 1), background -0.1 and ink 1.175.
          train: passed to the recogniser.

        Returns:
          A graph of positions + 1 nodes with ``num_classes`` + 1 arcs each; its
          arrays have a leading batch axis.

        Raises:
          ConfigError: lines of another height or number of channels.
        """
        check_line(self, x, self.field)
        sides = ((0, 0), (0, 0), (self.margin, self.margin), (0, 0))
        x = jnp.pad(x, sides, constant_values=self.background)
        net = names.resolve("recognizer", self.recognizer, RECOGNIZERS)
        scores = net(num_classes=self.num_classes + 1, line=True, name="recognizer")(
            x, train=train
        )
        return jax.vmap(chain)(scores)


def check_line(module: nn.Module, x: Array, height: int) -> None:
    """Reject an array that is no batch of lines of this height.

    Raises:
      ConfigError: another rank, height or number of channels.
    """
    if x.ndim != 4 or x.shape[1] != height or x.shape[3] != 1:
        raise names.ConfigError(
            f"{type(module).__name__} expects lines (n, {height}, width, 1), "
            f"got an array of shape {x.shape}"
        )


def recognition_graph(
    found: Segmentation, scores: Float[Array, "cuts pieces classes"]
) -> Graph:
    """The segmentation graph with an arc for each class of each piece (V-B)."""
    cuts, pieces, classes = scores.shape
    node = jnp.arange(cuts)
    source = node[:, None] - 1 - jnp.arange(pieces)[None, :]
    score = jnp.where(found.present[..., None], scores, -jnp.inf)
    return Graph(
        source=jnp.repeat(jnp.maximum(source, 0), classes, axis=1),
        label=jnp.tile(jnp.arange(classes), (cuts, pieces)),
        score=score.reshape(cuts, -1),
        initial=jnp.where(node == 0, 0.0, -jnp.inf),
        final=jnp.where(node == found.count - 1, 0.0, -jnp.inf),
        labels=classes,
    )


def chain(scores: Float[Array, "positions labels"]) -> Graph:
    """The graph of a sequence: one arc for each label at each position (VII-A).

    The last label is the blank.
    """
    positions, labels = scores.shape
    node = jnp.arange(positions + 1)
    shape = (positions + 1, labels)
    return Graph(
        source=jnp.broadcast_to(jnp.maximum(node - 1, 0)[:, None], shape),
        label=jnp.broadcast_to(jnp.arange(labels)[None, :], shape),
        score=jnp.pad(scores, ((1, 0), (0, 0)), constant_values=-jnp.inf),
        initial=jnp.where(node == 0, 0.0, -jnp.inf),
        final=jnp.where(node == positions, 0.0, -jnp.inf),
        labels=labels,
        blank=labels - 1,
    )
