"""Image formats that are converted, and those that are refused."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import pictures
from cnn_jax.data.pictures import PictureError, decode

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
    with pytest.raises(PictureError, match=r"PNG of mode I;16 is not 8-bit"):
        decode(saved(picture, "png"), 3)


@pytest.mark.parametrize("encoded", [b"", b"text", b"\xff\xd8\xff", b"%!PS-Adobe"])
def test_no_picture(encoded):
    with pytest.raises(PictureError, match=f"identify the format of {len(encoded)} b"):
        decode(encoded, 3)


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_more_pixels_than_a_picture_has(monkeypatch, form):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(PictureError, match="limit of 100"):
        decode(saved(Image.fromarray(RAMP), form), 3)


FORMS = ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm")
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)
PHOTO = np.asarray(Image.fromarray(PHOTO).resize((60, 72)))


@pytest.mark.parametrize("form", [*FORMS[1:], "lzw"])
def test_other_formats_are_read(form):
    options = {"lzw": {"form": "tiff", "compression": "tiff_lzw"}}
    encoded = saved(Image.fromarray(PHOTO), **options.get(form, {"form": form}))
    pixels = decode(encoded, 3)
    with Image.open(io.BytesIO(encoded)) as opened:
        np.testing.assert_array_equal(pixels, opened.convert("RGB"))
    assert pixels.shape == PHOTO.shape


def test_first_picture_of_an_animation():
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    encoded = saved(frames[0], "gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(encoded, 3)[0, 0], [255, 0, 0])


def damages(encoded: bytes, count: int):
    """Copies overwritten, changed, cut or repeated at random positions."""
    rng = np.random.default_rng(len(encoded))
    for index in range(count):
        start, stop = np.sort(rng.integers(0, len(encoded), 2))
        if index % 2:  # headers are short and fail in the most ways
            start, stop = start % 100, start % 100 + 1 + stop % 4
        noise = rng.integers(0, 256, stop - start).astype(np.uint8).tobytes()
        for middle in (bytes(stop - start), noise, b"", 2 * encoded[start:stop]):
            yield encoded[:start] + middle + encoded[stop:]


def outcome(encoded: bytes, damaged: pictures.Damaged) -> str:
    """'pixels', or the error message."""
    try:
        pixels = decode(encoded, 3, damaged)
    except PictureError as error:
        return str(error)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2:] == (3,)
    return "pixels"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_any_damage_gives_pixels_or_a_line(form, count):
    encoded = saved(Image.fromarray(PHOTO), form)
    found = [
        {rule: outcome(hurt, rule) for rule in ("refuse", "accept")}
        for hurt in damages(encoded, count)
    ]
    assert all(len(line.splitlines()) == 1 for each in found for line in each.values())
    refused = [each for each in found if each["refuse"] != "pixels"]
    assert len(refused) >= count
    accepted = [each for each in found if each["accept"] == "pixels"]
    assert len(accepted) >= len(found) - len(refused)


def test_damaged_png_is_refused_whatever_its_place():
    """As from a disk that lost the second half of the file."""
    encoded = saved(Image.fromarray(PHOTO), "png")
    places = np.linspace(len(encoded) // 2, len(encoded) - 13, 40).astype(int)
    for place in places:
        hurt = encoded[:place] + bytes(len(encoded) - place)
        with pytest.raises(PictureError):
            decode(hurt, 3)


def test_pixels_of_another_checksum_are_accepted_on_request():
    encoded = bytearray(saved(Image.fromarray(PHOTO), "png"))
    assert zlib.crc32(encoded[-8:-4]) == int.from_bytes(encoded[-4:])
    start = encoded.index(b"IDAT")
    length = int.from_bytes(encoded[start - 4 : start])
    encoded[start + 4 + length] ^= 1  # of the chunk's checksum
    with pytest.raises(PictureError, match="broken PNG file") as raised:
        decode(bytes(encoded), 3)
    assert raised.value.acceptable
    np.testing.assert_array_equal(decode(bytes(encoded), 3, "accept"), PHOTO)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_damaged_jpeg_is_refused_or_taken_as_it_is(mode):
    picture = Image.fromarray(PHOTO).convert(mode)
    encoded = bytearray(saved(picture, "jpeg", quality=95))
    middle = len(encoded) // 2
    encoded[middle:-2] = bytes(len(encoded) - middle - 2)
    with pytest.raises(PictureError, match="Corrupt JPEG data") as raised:
        decode(bytes(encoded), 3)
    assert raised.value.acceptable
    assert decode(bytes(encoded), 3, "accept").shape == PHOTO.shape


def test_jpeg_is_decoded_at_a_fraction_of_its_size():
    encoded = saved(Image.fromarray(PHOTO), "jpeg")
    assert decode(encoded, 3, least=(18, 15)).shape == (18, 15, 3)
    assert decode(encoded, 3, least=(19, 15)).shape == (27, 23, 3)
    assert decode(encoded, 3, least=(37, 15)).shape == (72, 60, 3)
