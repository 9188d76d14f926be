"""Candidate cuts of a line, and the pieces between them, in arrays of fixed size.

The heuristic segmenter of LeCun et al. (1998), section V-A: a line has more cuts than
digits, and the recogniser decides which cuts are right.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

Line = Float[Array, "height width"]


class Segmentation(struct.PyTreeNode):
    """The segmentation graph of a line, with arcs but no scores.

    Node j is the j-th cut from the left; its arc k is the piece between cut
    j - 1 - k and cut j.

    Attributes:
      cut: the column that each cut precedes, (cuts,).
      count: number of cuts found; 1 for a line without ink.
      span: first ink column of each piece and the first column after its last,
        (cuts, pieces, 2).
      present: mask of the pieces that exist, (cuts, pieces).
    """

    cut: Any
    count: Any
    span: Any
    present: Any


def cut_strength(
    profile: Float[Array, " width"], radius: int, reach: int, depth: float
) -> Float[Array, " width"]:
    """Score each column as a position for a cut; 0 for none.

    Args:
      profile: amount of ink in each column.
      radius: a thin column has the least ink within this distance; at least 1.
      reach: distance within which the maximum ink on each side is compared with it; at
        least 1.
      depth: minimum missing ink, as a share of the smaller of the two maxima.

    Returns:
      2 in the middle of a gap; the share of missing ink at a thin column.
    """
    width = profile.shape[0]
    inked = profile > 0
    before, after = _neighbours(inked)
    gap = ~inked & (before >= 0) & (after < width)
    gap &= jnp.arange(width) == (before + after + 1) // 2

    def extreme(function, fill, first, last):
        """Reduce over columns at distances first to last (negative: to the left)."""
        padded = jnp.pad(profile, max(reach, radius), constant_values=fill)
        start = max(reach, radius) + first
        windows = [
            padded[start + i : start + i + width] for i in range(last - first + 1)
        ]
        return function(jnp.stack(windows), axis=0)

    # The first of equally thin columns counts.
    thinnest = profile < extreme(jnp.min, jnp.inf, -radius, -1)
    thinnest &= profile <= extreme(jnp.min, jnp.inf, 1, radius)
    left = extreme(jnp.max, -jnp.inf, -reach, -1)
    right = extreme(jnp.max, -jnp.inf, 1, reach)
    sides = jnp.minimum(left, right)
    missing = 1.0 - profile / jnp.where(inked & (sides > 0), sides, 1.0)
    thin = inked & thinnest & (missing >= depth) & (sides > 0)
    return jnp.where(gap, 2.0, jnp.where(thin, missing, 0.0))


def select_cuts(
    inked: Bool[Array, " width"], strength: Float[Array, " width"], cuts: int
) -> tuple[Int[Array, "{cuts}"], Int[Array, ""]]:
    """Select both ends of the ink and the strongest cuts between, left to right.

    Args:
      inked: columns with ink.
      strength: see `cut_strength`.
      cuts: size of the result.

    Returns:
      The columns that the cuts precede (0 past the count), and the number of cuts;
      1 for a line without ink.
    """
    width = inked.shape[0]
    index = jnp.arange(width)
    first = jnp.where(inked, index, width).min()
    end = jnp.where(inked, index + 1, 0).max()
    strength = jnp.where((index > first) & (index < end), strength, 0.0)
    best, column = jax.lax.top_k(strength, min(cuts - 2, width))
    inner = jnp.sort(jnp.where(best > 0, column, width))
    inner = jnp.pad(inner, (0, cuts - 2 - inner.shape[0]), constant_values=width)
    count = jnp.where(inked.any(), (inner < width).sum() + 2, 1)
    cut = jnp.concatenate([first[None], inner, jnp.full((1,), width)])
    place = jnp.arange(cuts)
    cut = jnp.where(place == count - 1, end, cut)
    return jnp.where(place < count, cut, 0), count


def spans(
    inked: Bool[Array, " width"],
    cut: Int[Array, " cuts"],
    count: Int[Array, ""],
    pieces: int,
) -> tuple[Int[Array, "cuts {pieces} 2"], Bool[Array, "cuts {pieces}"]]:
    """The ink between all pairs of cuts that are at most ``pieces`` apart.

    Returns:
      The ink columns of each piece, from the first to one past the last (see
      `Segmentation`), and whether both cuts exist with ink between them.
    """
    width = inked.shape[0]
    node = jnp.arange(cut.shape[0])[:, None]
    source = node - 1 - jnp.arange(pieces)[None, :]
    before, after = _neighbours(inked)
    left = after[jnp.minimum(cut[jnp.maximum(source, 0)], width - 1)]
    right = before[jnp.maximum(cut - 1, 0)][:, None] + 1
    right = jnp.broadcast_to(right, left.shape)
    present = (source >= 0) & (node < count) & (left < right)
    span = jnp.stack([left, right], axis=-1)
    return jnp.where(present[..., None], span, 0), present


def cut_out(
    lines: Float[Array, "n height width"],
    line: Int[Array, " pieces"],
    span: Int[Array, "pieces 2"],
    field: int,
    paper: float,
) -> Float[Array, "pieces height {field}"]:
    """Copy each piece of a line to the centre of an otherwise empty field.

    Args:
      lines: grey levels.
      line: index of each piece's line.
      span: first column of each piece and the first column after it.
      field: columns of a field, which the piece is centred in.
      paper: grey level of the rest of the field.
    """
    left, right = span[:, :1], span[:, 1:]
    column = (left + right) // 2 - field // 2 + jnp.arange(field)[None, :]
    inside = (column >= left) & (column < right)
    column = jnp.clip(column, 0, lines.shape[2] - 1)
    found = lines[line[:, None], :, column]
    return jnp.where(inside[:, :, None], found, paper).swapaxes(1, 2)


def _neighbours(
    inked: Bool[Array, " width"],
) -> tuple[Int[Array, " width"], Int[Array, " width"]]:
    """Nearest ink columns at or before each column (-1: none) and at or after it."""
    width = inked.shape[0]
    index = jnp.arange(width)
    before = jax.lax.cummax(jnp.where(inked, index, -1))
    after = jax.lax.cummin(jnp.where(inked, index, width), reverse=True)
    return before, after
