"""Small prepared TFDS directories for the tests of `cnn_jax.data`."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image


def encode(pixels: np.ndarray, form: str = "png") -> bytes:
    """An image file of uint8 pixels (h, w, c)."""
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, form)
    return out.getvalue()


def write_set(
    root: str,
    name: str,
    splits: Mapping[str, Sequence[tuple[bytes, int]]],
    shape: tuple = (None, None, 3),
    num_classes: int = 3,
    features: dict | None = None,
    version: str = "1.0.0",
    file_format: str = "array_record",
) -> str:
    """Write encoded images and labels as a TFDS data set; return its directory."""
    features = features or {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(num_classes=num_classes),
    }

    def info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=tuple(features)[:2],
            disable_shuffling=True,
        )

    def generate(examples):
        for index, values in enumerate(examples):
            yield index, dict(zip(features, values, strict=True))

    with tfds.core.registered.skip_registration():
        builder = type(
            name.title().replace("_", ""),
            (tfds.core.GeneratorBasedBuilder,),
            {
                "VERSION": tfds.core.Version(version),
                "url_infos": {},
                "name": name,
                "__module__": "__main__",
                "_info": info,
                "_split_generators": lambda self, _: {
                    split: generate(examples) for split, examples in splits.items()
                },
                "_generate_examples": lambda self: (),
            },
        )
        built = builder(data_dir=root, file_format=file_format)
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            built.download_and_prepare()
    return str(built.data_dir)


@pytest.fixture
def pictures() -> Callable[..., list[tuple[bytes, int]]]:
    """A function that makes n encoded random images with labels 0, 1, 2, 0, ..."""

    def make(count: int, shape=(6, 5, 3), form="png", seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape))
        return [
            (encode(image.astype(np.uint8), form), index % 3)
            for index, image in enumerate(pixels)
        ]

    return make


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> str:
    """A data directory with the prepared embedded digits."""
    from cnn_jax.data import digits

    root = str(tmp_path_factory.mktemp("tfds"))
    digits.prepare(root)
    return root
