"""Kinds of pictures that are converted, and those that are refused."""

import io

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.pictures import decode

RAMP = np.linspace(0, 255, 12 * 10 * 3).astype(np.uint8).reshape(12, 10, 3)


def saved(picture: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def test_png_is_lossless():
    encoded = saved(Image.fromarray(RAMP), "png")
    np.testing.assert_array_equal(decode(encoded, 3), RAMP)
    assert decode(encoded, 1).shape == (12, 10, 1)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("L", "jpeg"), ("CMYK", "jpeg"), ("L", "png"), ("P", "png"), ("1", "png")],
)
def test_other_modes_become_rgb(mode, form):
    picture = Image.fromarray(RAMP).convert(mode)
    encoded = saved(picture, form)
    pixels = decode(encoded, 3)
    assert pixels.shape == (12, 10, 3)
    expected = np.asarray(picture.convert("RGB"), int)
    assert abs(pixels - expected).max() <= (12 if form == "jpeg" else 0)


def test_alpha_is_dropped_without_blending():
    alpha = np.full((12, 10, 1), 17, np.uint8)
    picture = Image.fromarray(np.concatenate([RAMP, alpha], 2))
    np.testing.assert_array_equal(decode(saved(picture, "png"), 3), RAMP)


def test_palette_with_transparency():
    picture = Image.fromarray(RAMP).quantize(8)
    encoded = saved(picture, "png", transparency=bytes(range(8)))
    np.testing.assert_array_equal(decode(encoded, 3), picture.convert("RGB"))


def test_more_than_8_bits_is_refused():
    picture = Image.fromarray(np.arange(120, dtype=np.uint16).reshape(12, 10))
    with pytest.raises(ValueError, match=r"PNG of mode I;16, not 8-bit"):
        decode(saved(picture, "png"), 3)


@pytest.mark.parametrize("encoded", [b"", b"text", b"\xff\xd8\xff"])
def test_no_picture(encoded):
    with pytest.raises(OSError, match=f"identify the format of {len(encoded)} b"):
        decode(encoded, 3)


def test_more_pixels_than_a_picture_has(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(ValueError, match="exceeds limit of 100 pixels"):
        decode(saved(Image.fromarray(RAMP), "png"), 3)
