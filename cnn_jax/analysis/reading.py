"""How a system reads strings: its errors on test lines, its segmentation of a line."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import graphs, models
from cnn_jax.data import preprocess, sources
from cnn_jax.models.gtn import OverSegmentation
from cnn_jax.training import strings


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A system's segmentation and reading of a line.

    Attributes:
      image: the line, (height, width).
      label: the digits of the line.
      cut: for each cut, the first column to its right.
      present: mask of the pieces in the graph, (cuts, pieces).
      posterior: posterior probability of each arc, (cuts, pieces, classes).
      source: cuts where the arcs of the best path begin.
      target: cuts where the arcs of the best path end.
      read: labels of the arcs of the best path.
    """

    image: np.ndarray
    label: np.ndarray
    cut: np.ndarray
    present: np.ndarray
    posterior: np.ndarray
    source: np.ndarray
    target: np.ndarray
    read: np.ndarray


class Reader:
    """A system that reads the test lines of its config.

    Args:
      config: config of the run that trained the system.
    """

    def __init__(self, config: dict[str, Any]):
        self.source = sources.open_source(config["dataset"])
        self.batch_size = config["eval_batch_size"]
        self.scale = preprocess.build(config["preprocess"], self.source.statistics())
        self.model = models.create(
            **config["model"], num_classes=self.source.num_classes
        )

    @functools.cached_property
    def sums(self) -> Callable[[Any, Any], dict[str, Any]]:
        """A compiled function from (params, batch) to sums over the batch."""

        def sums(params: Any, batch: Any) -> dict[str, Any]:
            outputs: Any = self.model.apply(
                {"params": params}, self.scale(batch["image"]), train=False
            )
            kinds = {
                "string_error": strings.string_errors(outputs, batch),
                "digit_error": strings.digit_edits(outputs, batch),
                "unspellable": 1.0 - strings.spellable(outputs, batch),
                "loss": strings.string_loss(outputs, batch),
                "digits": batch["length"],
                "strings": jnp.ones_like(batch["mask"]),
            }
            return {key: (value * batch["mask"]).sum() for key, value in kinds.items()}

        return jax.jit(sums)

    def __call__(self, params: Any) -> dict[str, float]:
        """String and digit error (fractions), and lines whose label no path spells.

        Args:
          params: parameters of the system.
        """
        totals: dict[str, float] = {}
        for batch in self.source.eval_batches("test", self.batch_size):
            for key, value in self.sums(params, batch).items():
                totals[key] = totals.get(key, 0.0) + float(value)
        count, digits = totals.pop("strings"), totals.pop("digits")
        shares = {"digit_error": digits}
        return {key: value / shares.get(key, count) for key, value in totals.items()}


def explain(reader: Reader, weights: Sequence[Any]) -> list[Explanation]:
    """Explain how systems with different weights read the same line.

    Args:
      reader: reader for the over-segmentation system.
      weights: parameters of each system.

    Returns:
      For each system: the line, its cuts, its pieces and the best path through them.
      The line is the first test line that the first system misreads and the last
      system reads correctly, or the first test line if there is none.
    """
    model = reader.model
    assert isinstance(model, OverSegmentation)
    batch = next(iter(reader.source.eval_batches("test", reader.batch_size)))
    images = reader.scale(jnp.asarray(batch["image"]))

    @jax.jit
    def see(params):
        graph: Any = model.apply({"params": params}, images, train=False)
        posterior = jax.vmap(
            jax.grad(lambda score, graph: graphs.forward(graph.replace(score=score)))
        )(graph.score, graph)
        wrong = strings.string_errors(graph, batch)
        return posterior, jax.vmap(graphs.viterbi)(graph), wrong

    seen = [jax.device_get(see(params)) for params in weights]
    found = jax.device_get(jax.jit(model.segment)(images))
    row = int(((seen[0][2] > 0) & (seen[-1][2] == 0)).argmax())
    return [
        Explanation(
            image=batch["image"][row, :, :, 0],
            label=batch["label"][row, : batch["length"][row]],
            cut=found.cut[row, : found.count[row]],
            present=found.present[row],
            posterior=posterior[row].reshape(*found.present.shape[1:], -1),
            source=path.source[row, : path.length[row]],
            target=path.target[row, : path.length[row]],
            read=path.label[row, : path.length[row]],
        )
        for posterior, path, _ in seen
    ]
