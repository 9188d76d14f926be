"""Study directories, written without training."""

from cnn_jax.training import run_name
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny

RESULT = {
    "status": "finished",
    "step": 4,
    "parameters": 100,
    "running_train_error": 0.3,
    "clean_train_error": 0.2,
    "clean_train_loss": 1.5,
    "test_error": 0.4,
    "test_loss": 2.5,
    "seconds": 7.0,
}


def write_run(directory, family, depth, seed, rows=(), result=None, **changes):
    """Write a run of a study: config, rows of the log, and the result, if any."""
    place = RunDirectory(directory / "runs" / run_name.build(family, depth, seed))
    config = tiny.config(seed=seed, **changes)
    config["model"]["depth"] = depth
    with place.open_for_training(config):
        for row in rows:
            place.append_row(row)
        if result is not None:
            place.finish(result)
    return place
