"""What the 1x1 convolutions save and add."""

import pytest

from cnn_jax.analysis import one_by_one


@pytest.mark.parametrize("kernel", [5, 3])
def test_macs_and_parameters_of_the_shrinking_convolution(kernel):
    fields = {"size": 7, "channels": 12, "shrink": 2, "width": 4, "batch": 1}
    found = one_by_one.measure_saving(kernel, **fields)
    pixels, taps = 7 * 7, kernel * kernel
    assert found.direct.macs == pixels * taps * 12 * 4
    assert found.shrunk.macs == pixels * (12 * 2 + taps * 2 * 4)
    assert found.direct.parameters == taps * 12 * 4 + 4
    assert found.shrunk.parameters == (12 * 2 + 2) + (taps * 2 * 4 + 4)
    assert found.time_ratio > 0


def test_time_ratio_sees_which_call_is_slower():
    import time

    ratio = one_by_one.time_ratio(
        lambda: time.sleep(0.02), lambda: time.sleep(0.002), repeats=3
    )
    assert ratio > 2


def test_only_the_added_non_linearity_computes_an_exclusive_or():
    assert one_by_one.learn_exclusive_or(True, steps=120) < 0.01
    # Every linear classifier of two independent bits errs on at least a quarter.
    assert one_by_one.learn_exclusive_or(False, steps=20) > 0.2
