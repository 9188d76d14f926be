"""Confusion matrices: errors by class, on a split or on given images."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.analysis.net import Net, Variables
from cnn_jax.data.item import Item, Split
from cnn_jax.data.sources import average_views
from cnn_jax.names import ConfigError
from cnn_jax.training.program import Program

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Attributes:
      matrix: counts, int64 (classes, classes); rows are the true classes, columns the
        predicted ones.
      loss: mean over the examples.
    """

    matrix: np.ndarray
    loss: float

    @property
    def error(self) -> float:
        """Fraction of the examples that are misclassified."""
        return 1 - float(np.trace(self.matrix) / self.matrix.sum())

    @property
    def class_errors(self) -> np.ndarray:
        """Error of each true class, (classes,); NaN for a class without examples."""
        counts = self.matrix.sum(1)
        right = np.diag(self.matrix) / np.maximum(counts, 1)
        return np.where(counts > 0, 1 - right, np.nan)

    def by_class(self, names: Sequence[str]) -> "pandas.DataFrame":
        """The classes that have examples, in their order.

        Args:
          names: of the classes, see `Net.class_names`.

        Returns:
          'examples' and 'error' (a fraction), indexed by the name of the class.
        """
        import pandas as pd

        columns = {"examples": self.matrix.sum(1), "error": self.class_errors}
        table = pd.DataFrame(columns, index=list(names))
        return table[table["examples"] > 0]

    def confusions(self, names: Sequence[str]) -> "pandas.DataFrame":
        """The pairs of classes that are confused, the most frequent first.

        Args:
          names: of the classes, see `Net.class_names`.

        Returns:
          'true' and 'predicted' (names), and 'times'.
        """
        import pandas as pd

        wrong = self.matrix - np.diag(np.diag(self.matrix))
        order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
        true, predicted = np.unravel_index(order, wrong.shape)
        columns = {"true": np.asarray(names)[true]}
        columns |= {"predicted": np.asarray(names)[predicted]}
        return pd.DataFrame({**columns, "times": wrong[true, predicted]})


def of_split(net: Net, split: Split) -> Confusion:
    """Confusion matrix of a whole split, measured as a run measures its error.

    Args:
      net: from `cnn_jax.load_run`.
      split: 'train' or 'test'.

    Returns:
      The counts and the loss.

    Raises:
      ConfigError: the data is missing or differs from the run's, or the network reads
        strings.
    """
    _check(net)
    source, program = net.program.source, net.program
    resident = jax.device_put(source.resident())
    there = source.num_train if split == "train" else source.num_test
    size = min(program.config["eval_batch_size"], there)
    matrix, total = _empty(net), 0.0
    for item in source.eval_batches(split, size):
        losses, found, labels, mask = _measure(program, net.variables, resident, item)
        real = np.asarray(mask) > 0
        total += float(np.asarray(losses, np.float64)[real].sum())
        np.add.at(matrix, (np.asarray(labels)[real], np.asarray(found)[real]), 1)
    return Confusion(matrix, total / matrix.sum())


def of_images(net: Net, images: Any, labels: Any) -> Confusion:
    """Confusion matrix of given images.

    Args:
      net: from `cnn_jax.load_run`.
      images: raw images, see `Net.predict`.
      labels: their classes, (n,).

    Returns:
      The counts and the loss.

    Raises:
      ConfigError: see `Net.predict`; also if a label is not a class of the network.
    """
    _check(net)
    matrix, labels = _empty(net), np.asarray(labels)
    if len(labels) != len(images) or not len(labels):
        raise ConfigError(f"got {len(images)} images and {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= len(matrix):
        raise ConfigError(
            f"labels range over {labels.min()}..{labels.max()}, but the network has "
            f"the classes 0..{len(matrix) - 1}"
        )
    logits = net.predict(images)
    batch = {"label": jnp.asarray(labels, jnp.int32)}
    losses = net.program.loss(jnp.asarray(logits), batch)
    np.add.at(matrix, (labels, logits.argmax(-1)), 1)
    return Confusion(matrix, float(losses.mean()))


def _check(net: Net) -> None:
    if net.program.facts.strings:
        raise ConfigError("the network reads strings of digits and has no classes")


def _empty(net: Net) -> np.ndarray:
    count = net.program.facts.num_classes
    return np.zeros((count, count), np.int64)


@functools.partial(jax.jit, static_argnames="program")
def _measure(program: Program, variables: Variables, resident: Any, item: Item) -> Any:
    """Losses, predicted classes, labels and mask of a batch."""
    batch = program.source.take(resident, item)
    images = program.preprocess(batch["image"])
    outputs: Any = program.model.apply(variables, images, train=False)
    outputs = average_views(outputs, batch["label"])
    losses = program.loss(outputs, batch)
    return losses, outputs.argmax(-1), batch["label"], batch["mask"]
