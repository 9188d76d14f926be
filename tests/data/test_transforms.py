"""The papers' crops against plain implementations with Pillow."""

import io

import numpy as np
import pytest
import scipy.stats
from PIL import Image
from sklearn.datasets import load_sample_image

from cnn_jax import names
from cnn_jax.data import pictures, transforms
from cnn_jax.data.regions import Picture
from cnn_jax.data.transforms import (
    AlexNetCrop,
    CenterCrop,
    InceptionCrop,
    ScaleCrop,
    TenCrop,
)

PHOTO = load_sample_image("china.jpg")[100:340, 100:420]  # 240 x 320


def encoded(pixels=PHOTO, form="png", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def coordinates(height, width) -> Picture:
    """An image whose colour encodes row and column (each over 0..255)."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack(
        [rows * 255 // (height - 1), columns * 255 // (width - 1), 0 * rows], 2
    )
    return Picture(encoded(pixels.astype(np.uint8)), 3)


def generator(seed=0):
    return np.random.default_rng(seed)


def test_center_crop_is_that_of_torchvision():
    """Resize the shorter side with antialiasing, crop the centre: Pillow's steps."""
    found = CenterCrop(64, 72)(Picture(encoded(), 3), generator())
    resized = Image.fromarray(PHOTO).resize((96, 72), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[4:68, 16:80].astype(int)
    assert abs(found - expected).max() <= 1


def test_ten_crop_is_corners_centre_and_mirror_images():
    picture = Picture(encoded(), 3)
    views = TenCrop(56, 64)(picture, generator())
    square = CenterCrop(64, 64)(picture, generator())
    assert views.shape == (10, 56, 56, 3)
    corners = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]  # the last is the centre
    for view, (top, left) in zip(views[:5], corners, strict=True):
        np.testing.assert_array_equal(view, square[top:, left:][:56, :56])
    np.testing.assert_array_equal(views[5:], views[:5, :, ::-1])


def test_scale_crop_draws_scale_place_and_mirror():
    picture = coordinates(200, 300)
    crop = ScaleCrop(50, (50, 100))
    spans, tops, mirrored = [], [], []
    for seed in range(60):
        image = crop(picture, generator(seed)).astype(float)
        span = (image[-1, :, 0] - image[0, :, 0]).mean() / 255  # of the height
        across = (image[:, -1, 1] - image[:, 0, 1]).mean() / 255  # of the width
        # the aspect ratio is kept: 200 x 300 pixels
        assert abs(abs(across) * 300 - span * 200) < 6
        spans.append(span)
        tops.append(image[0, 0, 0] / 255)
        mirrored.append(across < 0)
    # a crop of 50 from a shorter side of 50 to 100: all of it, down to half
    assert min(spans) < 0.55
    assert max(spans) > 0.9
    assert max(tops) > 0.3
    assert 10 < sum(mirrored) < 50


def test_scale_crop_of_the_whole_is_the_resized_picture():
    pixels = PHOTO[:, :240]
    found = ScaleCrop(120, (120, 120), flip=False)(
        Picture(encoded(pixels), 3), generator()
    )
    expected = pixels.reshape(120, 2, 120, 2, 3).mean((1, 3))
    assert abs(found - expected).max() <= 1


def test_alexnet_crop_stays_in_the_central_square():
    picture = coordinates(100, 300)
    for seed in range(20):
        image = AlexNetCrop(80, 100, flip=False)(picture, generator(seed))
        columns = image[..., 1] / 255
        assert 1 / 3 - 0.01 <= columns.min() < columns.max() <= 2 / 3 + 0.01
        assert abs((columns.max() - columns.min()) - 80 / 300) < 0.02


def test_a_crop_from_json_is_the_same():
    """Its text is stored with a stream's position and compared when a run resumes."""
    assert str(ScaleCrop(40, [80, 90])) == str(ScaleCrop(40, (80, 90)))
    ranges = {"area": (0.1, 0.3), "ratio": (0.5, 2.0)}
    lists = {name: list(pair) for name, pair in ranges.items()}
    assert str(InceptionCrop(8, **lists)) == str(InceptionCrop(8, **ranges))


def test_inception_crop_draws_area_and_shape():
    picture = coordinates(200, 300)
    areas, ratios = [], []
    for seed in range(80):
        image = InceptionCrop(32, flip=False)(picture, generator(seed)) / 255
        height = (image[-1, 0, 0] - image[0, 0, 0]) * 32 / 31
        width = (image[0, -1, 1] - image[0, 0, 1]) * 32 / 31
        areas.append(height * width)
        ratios.append(width * 300 / (height * 200))
    assert 0.06 < min(areas) < 0.2
    assert 0.8 < max(areas) < 1.1
    assert 0.7 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.45


def uniform(found, low, high) -> bool:
    """Kolmogorov and Smirnov's test at p = 0.001, for a seeded draw."""
    return scipy.stats.kstest(found, "uniform", (low, high - low)).pvalue > 0.001


def places(crop, height, width, count=400):
    """Row and column, in pixels, at which crops of an image start."""
    picture = coordinates(height, width)
    sides = np.array([height - 1, width - 1]) / 255
    corners = [crop(picture, generator(seed))[0, 0, :2] for seed in range(count)]
    return (np.array(corners) * sides).T


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        (ScaleCrop(40, (80, 80), flip=False), (0, 40), (0, 120)),
        # of 80 x 160 pixels, the central square begins at column 40
        (AlexNetCrop(40, 80, flip=False), (0, 40), (40, 80)),
    ],
)
def test_crops_begin_anywhere(crop, rows, columns):
    """In an image of 80 x 160 pixels; a colour step is 1 / 3 to 2 / 3 of a pixel."""
    for found, (low, high) in zip(places(crop, 80, 160), (rows, columns), strict=True):
        assert low - 1 < found.min() < low + 3
        assert high - 3 < found.max() < high + 1
        assert uniform(found, low - 0.5, high + 0.5)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (30, 300, (0, 130, 30, 40)),  # too wide: the largest of 4 : 3
        (300, 30, (130, 0, 40, 30)),
        (30, 33, (0, 0, 30, 33)),  # between 3 : 4 and 4 : 3: the whole
    ],
)
def test_inception_crop_ends_with_the_centre(height, width, box):
    """If no draw fits, as in torchvision's ``RandomResizedCrop``."""

    class Empty(Picture):
        def __init__(self):
            self.height, self.width = height, width

    assert InceptionCrop(8, area=(1.0, 1.0))._box(Empty(), generator()) == box


def test_inception_crop_draws_area_uniformly_and_the_logarithm_of_its_shape():
    """Small areas of a large image, so that none is redrawn for its size."""
    crop = InceptionCrop(8, area=(0.1, 0.3), ratio=(1 / 3, 3.0))

    class Large(Picture):
        def __init__(self):
            self.height = self.width = 10_000

    random, large = generator(), Large()
    boxes = np.array([crop._box(large, random) for _ in range(3000)], float)
    top, left, height, width = boxes.T
    assert uniform(height * width / 1e8, 0.1, 0.3)
    assert uniform(np.log(width / height), -np.log(3), np.log(3))
    assert not uniform(width / height, 1 / 3, 3.0)
    assert uniform(top / (1e4 - height), 0, 1)
    assert uniform(left / (1e4 - width), 0, 1)


@pytest.mark.parametrize(
    "crop", [ScaleCrop(8, (8, 8)), AlexNetCrop(8, 8), InceptionCrop(8, (1.0, 1.0))]
)
def test_half_of_the_crops_are_mirrored(crop):
    picture = coordinates(8, 8)
    random, count = generator(), 2000
    images = np.stack([crop(picture, random) for _ in range(count)])
    mirrored = images[:, 4, 0, 1] > images[:, 4, -1, 1]
    assert abs(mirrored.mean() - 0.5) < 3 * 0.5 / count**0.5


def test_scale_is_drawn_uniformly_with_both_ends():
    class Recorded(Picture):
        """An image that records the scale of each crop."""

        def __init__(self):
            self.height, self.width, self.scales = 4096, 8192, []

        def cut(self, box, size, mirrored):
            self.scales.append(round(self.height * size / box[2]))
            return np.zeros((size, size, 3), np.uint8)

    crop, random, picture = ScaleCrop(10, (20, 29)), generator(), Recorded()
    for _ in range(5000):
        crop(picture, random)
    drawn = picture.scales
    sides, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(sides, range(20, 30))
    assert ((counts - 500) ** 2 / 500).sum() < 27.9  # chi^2, p = 0.001


def test_inception_crop_falls_back_to_the_centre():
    image = InceptionCrop(8, area=(1.0, 1.0))(coordinates(10, 200), generator())
    columns = image[..., 1] / 255
    assert abs(columns.mean() - 0.5) < 0.02
    assert columns.max() - columns.min() < 0.08


def test_jpeg_shrunk_a_lot_is_decoded_small(monkeypatch):
    picture = Picture(encoded(form="jpeg", quality=95), 3)
    sizes = []
    plain = pictures.simplejpeg.decode_jpeg

    def decode(*args, **options):
        pixels = plain(*args, **options)
        sizes.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(pictures.simplejpeg, "decode_jpeg", decode)
    image = picture.cut((0, 0, 240, 320), 56, False)
    assert sizes == [(60, 80)]
    expected = Image.fromarray(PHOTO).resize((56, 56), Image.Resampling.BILINEAR)
    assert abs(image - np.asarray(expected, int)).mean() < 4
    part = picture.cut((60, 80, 120, 160), 28, False)
    expected = Image.fromarray(PHOTO[60:180, 80:240])
    expected = expected.resize((28, 28), Image.Resampling.BILINEAR)
    assert abs(part - np.asarray(expected, int)).mean() < 8
    picture.cut((0, 0, 100, 100), 56, False)
    assert sizes[-1] == (240, 320)


@pytest.mark.parametrize("form", ["png", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_transform_keeps_its_promise_of_shape(form, channels):
    for shape in ((240, 320), (30, 200), (200, 30)):
        picture = Picture(encoded(PHOTO[: shape[0], : shape[1]], form), channels)
        for crop in (
            ScaleCrop(20, (24, 64)),
            AlexNetCrop(20, 24),
            InceptionCrop(20),
            CenterCrop(20, 24),
            TenCrop(20, 24),
        ):
            image = crop(picture, generator())
            views = () if crop.views == 1 else (crop.views,)
            assert image.shape == (*views, 20, 20, channels)
            assert image.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_are_converted(mode):
    colours = Image.fromarray(PHOTO).convert(mode)
    out = io.BytesIO()
    colours.save(out, "jpeg", quality=95)
    image = Picture(out.getvalue(), 3).cut((0, 0, 240, 240), 240, False)
    expected = np.asarray(colours.convert("RGB"), int)[:, :240]
    assert abs(image - expected).mean() < 4


def test_truncated_jpeg_is_refused():
    cut = encoded(form="jpeg")[:-1000]
    for damaged in ("refuse", "accept"):
        with pytest.raises((OSError, ValueError), match=r"Premature|truncated"):
            Picture(cut, 3, damaged).cut((0, 0, 240, 240), 64, False)


@pytest.mark.parametrize(
    ("kind", "section", "message"),
    [
        ("train", {"name": "resnet"}, "choices: scale, alexnet, inception"),
        ("test", {"name": "scale"}, "choices: center, ten_crop"),
        ("train", {"name": "scale", "shorter": (100, 300)}, "at least the size"),
        ("train", {"name": "scale", "shorter": (256,)}, "must be two numbers"),
        ("train", {"name": "inception", "area": (0.5, 2.0)}, r"pair in \(0, 1\]"),
        ("test", {"name": "center", "size": 300}, "at most shorter = 256"),
        (
            "test",
            {"name": "center", "shorter": 10**6},
            "sides must be at most 32767",
        ),
        ("test", {"name": "ten_crop", "shorter": 10**6}, "32767 pixels, got 1000000"),
        ("train", {"name": "scale", "shorter": (256, 10**6)}, "pixels, got 1000000"),
        ("train", {"name": "alexnet", "shorter": 10**6}, "32767 pixels, got 1000000"),
        ("train", {"name": "inception", "size": 10**6}, "32767 pixels, got 1000000"),
        ("test", {"name": "center", "sise": 3}, "did you mean 'size'"),
    ],
)
def test_bad_sections(kind, section, message):
    with pytest.raises(names.ConfigError, match=message):
        transforms.build(kind, section)
