"""Measure image decoding and augmentation: images per second on one core.

    python -m experiments.benchmark decode

Decodes JPEG files of ImageNet's usual size (500x375, cut from the two photographs
that scikit-learn ships, or those of ``--folder``) and augments them as He et al.
(2015) do at 224: shorter side in [256, 480], random crop, flip. Compares this
package's stream with Pillow alone, with torchvision (its transforms on Pillow
images; its own decoder and tensor transforms) and with tf.data, where those are
installed. The pipelines alternate in one thread. Rates are per second of processor
time, so that other work on the machine has little effect.
"""

import argparse
import io
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas
from PIL import Image

from cnn_jax import names
from experiments import launch, tables

SIZE, SHORTER = 224, (256, 480)
Augment = Callable[[bytes, np.random.Generator], object]


def photographs(count: int) -> list[bytes]:
    """JPEG files of 500x375 and 375x500 pixels, quality 85 to 95."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    files = []
    for index in range(count):
        whole = load_sample_images().images[index % 2]
        height, width = ((375, 500), (375, 500), (400, 375))[index % 3]
        top = random.integers(0, whole.shape[0] - height + 1)
        left = random.integers(0, whole.shape[1] - width + 1)
        region = Image.fromarray(whole[top : top + height, left : left + width])
        out = io.BytesIO()
        region.save(out, "jpeg", quality=(85, 90, 95)[index % 3])
        files.append(out.getvalue())
    return files


def of_this_package() -> Augment:
    """The augmentation of an image by a worker of `cnn_jax.data.streams`."""
    from cnn_jax.data import regions, transforms

    crop = transforms.ScaleCrop(SIZE, SHORTER)
    return lambda encoded, random: crop(regions.Picture(encoded, 3), random)


def by_pillow(encoded: bytes, random: np.random.Generator) -> np.ndarray:
    """Decode, resize and crop with Pillow, written in the obvious way."""
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    shorter = int(random.integers(SHORTER[0], SHORTER[1] + 1))
    scale = shorter / min(picture.size)
    width, height = (int(side * scale + 1e-6) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    top = int(random.integers(0, height - SIZE + 1))
    left = int(random.integers(0, width - SIZE + 1))
    picture = picture.crop((left, top, left + SIZE, top + SIZE))
    if random.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(picture)


def of_torchvision(own_decoder: bool) -> Augment:
    """torchvision's transforms, on Pillow images or on tensors."""
    import torch
    from torchvision import io as torch_io
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    crop = v2.Compose([v2.RandomCrop(SIZE), v2.RandomHorizontalFlip()])

    def augment(encoded: bytes, random: np.random.Generator) -> object:
        if own_decoder:
            content = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
            picture = torch_io.decode_jpeg(content, mode=torch_io.ImageReadMode.RGB)
        else:
            picture = Image.open(io.BytesIO(encoded)).convert("RGB")
        shorter = int(random.integers(SHORTER[0], SHORTER[1] + 1))
        picture = crop(v2.functional.resize(picture, shorter, antialias=True))
        return picture if own_decoder else v2.functional.pil_to_tensor(picture)

    return augment


def of_tf_data() -> Callable[[Sequence[bytes]], None]:
    """A tf.data pipeline of TensorFlow's own operations, in one thread."""
    import tensorflow as tf

    def augment(encoded):
        picture = tf.io.decode_jpeg(encoded, channels=3)
        shape = tf.cast(tf.shape(picture)[:2], tf.float32)
        shorter = tf.random.uniform((), SHORTER[0], SHORTER[1] + 1, tf.int32)
        scale = tf.cast(shorter, tf.float32) / tf.reduce_min(shape)
        size = tf.cast(tf.math.ceil(shape * scale), tf.int32)
        picture = tf.image.resize(picture, size)
        picture = tf.image.random_crop(picture, (SIZE, SIZE, 3))
        return tf.cast(tf.image.random_flip_left_right(picture), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1

    def run(files: Sequence[bytes]) -> None:
        pictures = tf.data.Dataset.from_tensor_slices(list(files))
        for _ in pictures.map(augment).with_options(options):
            pass

    return run


def one_by_one(augment: Augment) -> Callable[[Sequence[bytes]], None]:
    """A pipeline that augments one file after another."""

    def run(files: Sequence[bytes]) -> None:
        random = np.random.default_rng(0)
        for encoded in files:
            augment(encoded, random)

    return run


PIPELINES: dict[str, Callable[[], Callable[[Sequence[bytes]], None]]] = {
    "cnn_jax": lambda: one_by_one(of_this_package()),
    "Pillow alone": lambda: one_by_one(by_pillow),
    "torchvision on Pillow": lambda: one_by_one(of_torchvision(False)),
    "torchvision on tensors": lambda: one_by_one(of_torchvision(True)),
    "tf.data": of_tf_data,
}


def measure(files: Sequence[bytes], rounds: int) -> pandas.DataFrame:
    """Images per second of processor time: a column a pipeline, a row a round."""
    runs = {}
    for name, make in PIPELINES.items():
        try:
            run = make()
            run(files[:2])  # tracing
        except (ImportError, RuntimeError) as error:  # not installed, or broken
            print(f"skipping {name}: {str(error).splitlines()[0]}")
        else:
            runs[name] = run

    def rate(run: Callable[[Sequence[bytes]], None]) -> float:
        start = time.process_time()
        run(files)
        return len(files) / (time.process_time() - start)

    return pandas.DataFrame(
        [{name: rate(run) for name, run in runs.items()} for _ in range(rounds)]
    )


def define(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    positive = launch.at_least(1)
    parser.add_argument("--images", type=positive, default=120, help="images per round")
    parser.add_argument("--rounds", type=positive, default=7, help="number of rounds")
    parser.add_argument("--folder", default="", help="your own JPEG files")


@launch.command(__doc__, define)
def main(values: argparse.Namespace) -> None:
    """Measure and print the results."""
    try:
        of_this_package()
    except ImportError as error:
        raise names.ConfigError(
            f"streaming needs {error.name}, which is not installed: "
            "run `pip install -e '.[streams]'` in the project's folder"
        ) from error
    if values.folder:
        paths = sorted(pathlib.Path(values.folder).rglob("*.[jJ][pP]*[gG]"))
        files = [path.read_bytes() for path in paths[: values.images]]
        if not files:
            raise names.ConfigError(f"no JPEG files in {values.folder!r}")
    else:
        files = photographs(values.images)
    rates = measure(files, values.rounds)
    size = np.mean([len(encoded) for encoded in files]) / 1000
    title = f"{len(files)} files of {size:.0f} kB on average, {values.rounds} rounds"
    speedup = rates.rdiv(rates["cnn_jax"], axis=0).median()
    rows = [
        {
            "pipeline": name,
            "images/s per core": f"{rate.median():.0f}",
            "range": f"{rate.min():.0f} to {rate.max():.0f}",
            "speedup of cnn_jax": f"{speedup[name]:.2f}x",
        }
        for name, rate in rates.items()
    ]
    tables.show(title, rows)
