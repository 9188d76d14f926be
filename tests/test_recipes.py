"""Every config has the hyperparameters of the paper that it names."""

import importlib
import pathlib
import re

import numpy as np
import pytest

from cnn_jax import data, study
from cnn_jax.data.sources import InMemory, open_source
from cnn_jax.training.config import as_dict
from cnn_jax.training.config_keys import flatten
from cnn_jax.training.program import Program
from tests.recipes import RECIPES
from tests.tiers import fast

FILES = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
NAMES = [path.stem for path in FILES]
# Keys that do not affect the result, or that a study replaces.
FREE = re.compile(
    r"(?!landscape)(.*\.)?(name|seed|eval_batch_size|steps_per_execution|log_every|eval_every"
    r"|checkpoint_every|data_dir|parallel\.(mode|devices|hosts|host_timeout)"
    r"|stream\.(workers|clean_images|statistics_images|damaged)"
    r"|run\.model\.(depth|shortcut))"
)
NAMED = re.compile(
    r".*(model|loss|dataset|digits|preprocess|augment|optimizer"
    r"|schedule|train|test)\.name"
)

YEAR = re.compile(r"\((19|20)\d\d\)")


def config_of(name):
    return importlib.import_module(f"configs.{name}").get_config()


def test_every_config_that_names_a_paper_has_a_recipe():
    naming = [path.stem for path in FILES if YEAR.search(path.read_text())]
    assert sorted(RECIPES) == sorted(naming)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_config_is_the_recipe_of_its_paper(name):
    expected = {}
    for source, values in RECIPES[name].items():
        assert not set(values) & set(expected), f"two values of a key: {source}"
        expected |= values
    found = flatten(config_of(name).to_dict())
    found = {
        key: value
        for key, value in found.items()
        if NAMED.fullmatch(key) or not FREE.fullmatch(key)
    }
    assert found == expected
    for key, value in found.items():
        assert type(value) is type(expected[key]), key


# Height, width, channels and classes of the configs' data sets.
IMAGES = {
    "digits": ((8, 8, 1), 10),
    "mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "imagenet2012": (None, 1000),  # the config's crop sets the size
}


def blank(shape, classes):
    """A blank data set of that shape."""
    images = np.full((2, *shape), 255, np.uint8)  # ink, for glyphs
    images[0, 0] = 0
    arrays = data.Arrays(images, np.array([0, classes - 1], np.int32))
    return data.Dataset("blank", classes, arrays, arrays)


def blank_digits():
    return blank(*IMAGES["digits"])


def blank_mnist():
    return blank(*IMAGES["mnist"])


def source_of(section):
    """The source of batches, by the data set's name, without the data."""
    if section["name"] == "digit_strings":
        digits = {"name": f"tests.test_recipes:blank_{section['digits']['name']}"}
        return open_source({**section, "digits": digits, "num_lines": 4})
    shape, classes = IMAGES[section["name"]]
    if "stream" in section:
        train, test = section["stream"]["train"], section["stream"]["test"]
        assert train["size"] == test["size"]
        shape = (train["size"], train["size"], 3)
    return InMemory(blank(shape, classes))


def runs_of(config):
    """The configs of a file's runs; for a study, the shallowest of each family."""
    if "system" in config:
        return [config[key] for key in ("isolated", "system", "displacement")]
    if "study" in config:
        return runs_of(config.study)
    if "families" in config:
        planned = study.expand(config)
        return [
            run.config
            for run in planned
            if (run.depth, run.seed) == (planned[0].depth, planned[0].seed)
        ]
    return [config]


FAST = [
    *("lenet5_digits", "alexnet_digits", "nin_cifar10", "gtn_digits"),
    *("resnet50_imagenet", "degradation_digits"),
]


@pytest.mark.parametrize("name", fast(FAST, NAMES))
def test_images_fit_the_network_and_its_classes_the_loss(name):
    """Only traced with shapes: nothing is trained and no data is read."""
    for run in runs_of(config_of(name)):
        two = {"batch_size": 2, "parallel": {"devices": 1, "bn_group_size": 0}}
        run = study.merge(as_dict(run), two)
        program = Program(run, source_of(run["dataset"]))
        assert program.num_parameters > 0
