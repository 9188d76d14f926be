"""Cuts where the ink is thin, and each piece between cuts alone in its field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.models import segmentation


def profile(text):
    """Ink of each column, from one digit per column."""
    return jnp.asarray([float(symbol) for symbol in text])


cut_strength = jax.jit(segmentation.cut_strength, static_argnums=(1, 2, 3))
select_cuts = jax.jit(segmentation.select_cuts, static_argnums=2)
spans = jax.jit(segmentation.spans, static_argnums=3)


def places(text, depth=0.1, radius=1, reach=4):
    """The cuts of `cut_strength` and their strengths."""
    found = np.asarray(cut_strength(profile(text.ljust(14, "0")), radius, reach, depth))
    return {
        int(place): round(float(found[place]), 3) for place in jnp.nonzero(found)[0]
    }


@pytest.mark.parametrize(
    ("text", "cuts"),
    [
        ("00000", {}),
        ("0055500", {}),
        ("5500055", {3: 2.0}),  # the middle of a gap
        ("550055", {3: 2.0}),
        ("050505", {2: 2.0, 4: 2.0}),
        ("058285", {3: 0.75}),  # thin compared with the 8 on both sides
        ("0582250", {3: 0.6}),  # the first of equals, thin compared with the lower side
        ("055550", {}),
        ("012345", {}),
        ("598", {}),
    ],
)
def test_cuts_are_in_gaps_and_thin_places(text, cuts):
    assert places(text) == cuts


def test_depth_radius_and_reach_decide_what_is_thin():
    assert places("0587850") == {3: 0.125}
    assert places("0587850", depth=0.2) == {}
    assert set(places("08482880", radius=1)) == {2, 4}
    assert set(places("08482880", radius=2)) == {4}
    far = "09" + "5" * 5 + "4" + "5" * 5 + "9"
    assert places(far, reach=2)[7] == 0.2
    assert places(far, reach=7)[7] == pytest.approx(1 - 4 / 9, abs=1e-3)


def test_the_strongest_cuts_are_kept_in_order():
    inked = jnp.asarray([False, *[True] * 8, False])
    strength = jnp.asarray([0, 0, 0.3, 0, 0.9, 0.5, 0, 0.7, 0, 0])
    cut, count = select_cuts(inked, strength, 8)
    assert count == 6
    np.testing.assert_array_equal(cut, [1, 2, 4, 5, 7, 9, 0, 0])
    cut, count = select_cuts(inked, strength, 4)
    assert count == 4
    np.testing.assert_array_equal(cut, [1, 4, 7, 9])
    cut, count = select_cuts(inked, strength, 2)
    assert count == 2
    np.testing.assert_array_equal(cut, [1, 9])


def test_a_line_without_ink_has_one_cut_and_no_piece():
    blank = jnp.zeros(9)
    cut, count = select_cuts(blank > 0, blank, 4)
    assert count == 1
    assert not cut.any()
    _, present = spans(blank > 0, cut, count, 2)
    assert not present.any()


def test_spans_are_the_ink_between_cuts():
    inked = profile("0110011010") > 0
    cut, count = jnp.asarray([1, 4, 7, 8, 9, 0]), jnp.asarray(5)
    span, present = map(np.asarray, spans(inked, cut, count, 2))
    wanted = {
        (1, 0): (1, 3),
        (2, 0): (5, 7),
        (2, 1): (1, 7),
        (3, 1): (5, 7),  # nothing between 7 and 8
        (4, 0): (8, 9),
        (4, 1): (8, 9),
    }
    found = {
        (int(node), int(piece)): tuple(span[node, piece].tolist())
        for node, piece in np.argwhere(present)
    }
    assert found == wanted


def test_a_piece_stands_alone_in_the_middle_of_its_field():
    lines = jax.random.uniform(jax.random.key(0), (2, 3, 9)) + 1
    line = jnp.asarray([0, 1, 1])
    span = jnp.asarray([[2, 5], [0, 2], [6, 9]])
    images = jax.jit(segmentation.cut_out, static_argnums=(3, 4))(
        lines, line, span, 6, -0.5
    )
    images, lines = np.asarray(images), np.asarray(lines)
    assert images.shape == (3, 3, 6)
    for image, row, (left, right) in zip(images, line, span.tolist(), strict=True):
        begin = 3 - (left + right) // 2 + left
        wanted = np.full((3, 6), -0.5, np.float32)
        wanted[:, begin : begin + right - left] = lines[row, :, left:right]
        np.testing.assert_array_equal(image, wanted)
