"""The measure of training error after layers were inserted."""

import itertools
from collections.abc import Iterator, Sequence

import jax

from cnn_jax.analysis import insertion
from cnn_jax.analysis.trained import Net
from experiments.measures.rows import Row


def measure_insertion(
    nets: Sequence[Net],
    family: str,
    depth: int,
    site: str,
    blocks: Sequence[int],
    rates: Sequence[float],
    steps: Sequence[int],
) -> list[Row]:
    """Training error after layers were inserted, and after training went on.

    Args:
      nets: the seeds of the shape that layers are inserted in, trained.
      family: of that shape (others are not given).
      depth: of that shape.
      site: the module behind which layers are inserted.
      blocks: how many blocks of two layers.
      rates: of the training that goes on, constant.
      steps: when the error is measured, ascending from 0, right after the insertion.

    Returns:
      A row for each seed, way of inserting (see `insertion.insert`), number of
      blocks, rate and step: 'how', 'blocks', 'rate', 'more_steps', 'train_error',
      'train_loss', 'changed_logits' (whose bits the insertion changed, of the
      training set) and 'largest_change' (of a logit).
    """
    del family, depth
    rows = []
    for net in nets:
        program, data = net.program, list(net.batches("train"))
        more = net.train_batches(steps[-1], start=net.step)
        for how, count in _insertions(blocks):
            longer, variables = insertion.insert(
                net.model,
                net.variables,
                site,
                count,
                how,
                data,
                jax.random.key(net.seed),
            )
            changed, largest = insertion.changed_logits(
                net.model, net.variables, longer, variables, data
            )
            for rate in rates:
                states = itertools.chain(
                    [variables],
                    insertion.train(
                        longer, variables, more, program.loss, program.optimizer, rate
                    ),
                )
                for step, state in enumerate(states):
                    if step not in steps:
                        continue
                    found = insertion.measure(
                        longer, state, data, program.loss, program.errors
                    )
                    rows.append(
                        {
                            **net.label,
                            "how": how,
                            "blocks": count,
                            "rate": rate,
                            "more_steps": step,
                            "train_error": found["error"],
                            "train_loss": found["loss"],
                            "changed_logits": changed,
                            "largest_change": largest,
                        }
                    )
    return rows


def _insertions(blocks: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Ways and numbers of blocks; the control once."""
    for how in insertion.HOWS:
        for count in blocks if how != "none" else (0,):
            yield how, count
