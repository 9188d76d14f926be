"""A run resumed on other devices ends the same, up to rounding."""

import jax
import numpy as np
import pytest

from cnn_jax.training.interrupt import Interrupted
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny
from tests.training.uninterrupted import Uninterrupted, final_state


def on(devices, mode="pmap"):
    """The tiny run; eight images share batch statistics on any number of devices.

    Augmentation is off, because it is drawn per device.
    """
    config = tiny.config(
        model={"depth": 4, "widths": (2,), "stage_sizes": (1,)},  # compiles fast
        parallel={"devices": devices, "mode": mode, "bn_group_size": 8},
        steps=8,
    )
    return Program({**config, "augment": {"name": "none"}})


@pytest.fixture(scope="module")
def programs():
    return {"1": on(1), "8": on(8), "8 shard_map": on(8, "shard_map")}


@pytest.fixture(scope="module")
def whole(programs, tmp_path_factory):
    return Uninterrupted.train(programs["1"], tmp_path_factory.mktemp("one") / "run")


@pytest.mark.parametrize(
    "route",
    [
        ("8", "1"),
        ("1", "8"),
        pytest.param(("8 shard_map", "1"), marks=pytest.mark.slow),
        pytest.param(("1", "8 shard_map"), marks=pytest.mark.slow),
    ],
)
def test_other_devices_go_on_with_a_checkpoint(programs, whole, tmp_path, route):
    place = RunDirectory(tmp_path / "run")

    def stop(step, row):
        if step == 5:
            raise Interrupted(15)

    first, second = (programs[name] for name in route)
    with pytest.raises(Interrupted):
        fit(first, 0, place, stop)
    result = fit(second, 0, place)
    assert result["device"].startswith(f"{second.devices.count} x ")
    for found, wanted in zip(
        jax.tree.leaves(final_state(second, place)),
        jax.tree.leaves(whole.state),
        strict=True,
    ):
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-5)
    for row, expected in zip(place.rows(), whole.place.rows(), strict=True):
        assert row == pytest.approx(expected, rel=2e-3)
