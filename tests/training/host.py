"""The program of one of several hosts in the tests: runs its jobs one by one.

    python -m tests.training.host HOSTS JOBS

JOBS is a JSON list of jobs: a config, a run directory and 'seconds', the minimum time
of a step. The examples fed to the host are recorded in ``fed-INDEX.json`` next to the
run directory.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

from cnn_jax.models.layers import BatchNorm
from cnn_jax.training import hosts
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from experiments import launch


class Normalised(nn.Module):
    """A small net with batch statistics that compiles fast."""

    num_classes: int
    norm: Callable[..., nn.Module] = BatchNorm
    depth: int = 8
    widths: tuple = ()

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(8)(x.reshape(x.shape[0], -1))
        x = self.norm()(x, train)
        return nn.Dense(self.num_classes)(nn.relu(x))


def body(values):
    del values
    jax.config.update("jax_numpy_rank_promotion", "raise")
    address, jobs = sys.argv[1:]
    for job in json.loads(jobs):
        placing = {**job["config"]["parallel"], "hosts": address}
        hosts.join(address, placing["host_timeout"])
        program = Program({**job["config"], "parallel": placing})
        fed = record(program.source)
        # only the first host uses the directory
        place = pathlib.Path(job["directory"], "" if hosts.is_first() else "not here")

        def report(step, row, job=job):
            time.sleep(job["seconds"])

        try:
            fit(program, 0, RunDirectory(place), report)
        finally:
            beside = pathlib.Path(job["directory"]).parent
            path = beside / f"fed-{hosts.index()}.json"
            path.write_text(json.dumps(fed))
    return 0


def record(source):
    """Record the indices of the examples that the source passes to the steps."""
    fed = []
    batches = source.train_batches

    def recorded(*arguments):
        for item, state in batches(*arguments):
            numbers = item["index"] if "index" in item else item["image"][:, 0, 0, 0]
            fed.append(np.asarray(numbers).tolist())
            yield item, state

    source.train_batches = recorded
    return fed


if __name__ == "__main__":
    sys.exit(launch.command(__doc__, lambda parser: None)(body)([]))
