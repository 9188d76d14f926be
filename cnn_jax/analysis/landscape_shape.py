"""Numbers of the shape of a loss landscape on a square grid around a network."""

import numpy as np
from jaxtyping import Float


def centre(loss: Float[np.ndarray, "rows columns"]) -> float:
    """The loss of the network itself, in the middle of the grid."""
    return float(loss[loss.shape[0] // 2, loss.shape[1] // 2])


def edge_power(loss: Float[np.ndarray, "rows columns"]) -> float:
    """Base-10 logarithm of the median loss at the grid's edge."""
    edge = np.concatenate([loss[0], loss[-1], loss[1:-1, 0], loss[1:-1, -1]])
    return float(np.log10(max(np.median(edge), 1e-12)))


def share_below(error: Float[np.ndarray, "rows columns"], most: float) -> float:
    """Fraction of the grid with an error of at most ``most``."""
    return float((error <= most).mean())


def local_minima(values: Float[np.ndarray, "rows columns"]) -> int:
    """Number of inner grid points below all eight neighbours.

    A smooth bowl has one. Non-finite points count as infinitely high.
    """
    ground = np.where(np.isfinite(values), values, np.inf)
    centre = ground[1:-1, 1:-1]
    rows, columns = centre.shape
    lowest = np.isfinite(centre)
    for down in range(3):
        for right in range(3):
            if (down, right) != (1, 1):
                lowest &= centre < ground[down : down + rows, right : right + columns]
    return int(lowest.sum())
