"""Evaluate a trained network: error, loss and confusion matrix, or class predictions.

    python -m experiments.evaluate runs/first
    python -m experiments.evaluate runs/first --split=train --data_dir=DATA
    python -m experiments.evaluate runs/first --folder=DIR
    python -m experiments.evaluate runs/first --images cat.jpg dog.png

The network comes from a run, finished or still training, or from a .safetensors file
written by `experiments.convert` or `experiments.export`. ``--folder`` takes a
directory with one subdirectory of images per class, named after the class.
``--images`` prints the five most likely classes of each image. Only ``--split`` needs
the dataset.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

import cnn_jax
from cnn_jax import study
from cnn_jax.analysis import confusion
from cnn_jax.analysis.confusion import Confusion
from cnn_jax.analysis.net import Net
from cnn_jax.data import given_pictures
from experiments import launch, tables

TOP = 5
# With more classes the matrix does not fit on a screen; its largest entries are shown.
LARGEST = 20


def define(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", help="run directory or weight file")
    what = parser.add_mutually_exclusive_group()
    splits, split = ("train", "test"), "split of the run's dataset"
    what.add_argument("--split", choices=splits, default="test", help=split)
    what.add_argument("--folder", default="", help="images in one subfolder per class")
    what.add_argument("--images", nargs="+", metavar="FILE", help="image files")
    parser.add_argument("--data_dir", default="", help="dataset directory, if moved")
    parser.add_argument("--averaged", action="store_true", help="use the EMA weights")


@launch.command(__doc__, define)
def main(values: argparse.Namespace) -> None:
    """Evaluate the network and print the results."""
    net = cnn_jax.load_run(values.run, values.data_dir, values.averaged)
    split = values.split if values.split == "train" else study.held_out(net.config)
    print(f"{values.run}: {net.family}-{net.depth}, seed {net.seed}, step {net.step:,}")
    if values.images:
        show_pictures(net, values.images)
    elif values.folder:
        files, labels = given_pictures.classes(values.folder, net.class_names)
        found = confusion.of_images(net, net.read(files), labels)
        show(net, values.folder, found)
    elif net.program.facts.strings:
        state = net.program.initial_state(net.seed).replace(**net.variables)
        found = net.program.evaluate(net.program.place(state), values.split)
        launch.show({"split": split, **found})
    else:
        show(net, split, confusion.of_split(net, values.split))


def show(net: Net, what: str, found: Confusion) -> None:
    """Print the error and loss, the error of each class and the confusion matrix."""
    examples, loss = f"{found.matrix.sum():,} ({what})", f"{found.loss:.4f}"
    launch.show({"examples": examples, "error": found.error, "loss": loss})
    names = net.class_names
    rows = [
        {
            "class": row.Index,
            "examples": f"{row.examples:,}",
            "error (%)": f"{100 * row.error:.2f}",
        }
        for row in found.by_class(names).itertuples()
    ]
    tables.show("error by class", rows)
    if len(names) <= LARGEST:
        rows = [
            {"true": name, **dict(zip(names, map(str, row), strict=True))}
            for name, row in zip(names, found.matrix, strict=True)
        ]
        tables.show("confusion matrix: rows are the true classes", rows)
        return
    rows = found.confusions(names).head(LARGEST).astype(str).to_dict("records")
    if rows:
        tables.show("most frequent confusions", rows)


def show_pictures(net: Net, files: Sequence[str]) -> None:
    """Print the most likely classes of each image, with their probabilities."""
    logits = net.predict(net.read(files)).astype(np.float64)
    likely = np.exp(logits - logits.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    for file, row in zip(files, likely, strict=True):
        best = np.argsort(-row, kind="stable")[:TOP]
        words = (f"{net.class_names[n]} {100 * row[n]:.1f} %" for n in best)
        print(f"{file}: {', '.join(words)}")


if __name__ == "__main__":
    sys.exit(main())
