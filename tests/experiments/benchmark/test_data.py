"""Reading a prepared set twice, the second time from the cache."""

import pathlib

import numpy as np
import pytest

from cnn_jax.data import Dataset, disk
from experiments.benchmark import data
from tests.data.conftest import encode, write_set


@pytest.fixture
def toy(tmp_path) -> pathlib.Path:
    """A data directory with a set of 4 + 2 images, each split large enough to cache."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)
    examples = [(encode(image), 0) for image in pixels]
    write_set(tmp_path, "toy", {"train": examples[:4], "test": examples[4:]})
    return tmp_path


def test_the_second_reading_is_from_the_cache(toy, monkeypatch, capsys):
    monkeypatch.setattr(disk, "CACHE_FROM", 1)
    decoded, decode = [], disk.pictures.decode

    def counting(*arguments):
        decoded.append(1)
        return decode(*arguments)

    monkeypatch.setattr(disk.pictures, "decode", counting)
    before = sorted(path.name for path in toy.rglob("*"))
    assert data.main(["toy", f"--data_dir={toy}"]) == 0
    assert len(decoded) == 6
    assert "toy: 6 images, 0 MB" in capsys.readouterr().out
    assert sorted(path.name for path in toy.rglob("*")) == before


def test_a_cache_that_gives_other_arrays_is_noticed(toy, monkeypatch):
    fingerprints = iter("ab")
    monkeypatch.setattr(Dataset, "fingerprint", property(lambda _: next(fingerprints)))
    with pytest.raises(RuntimeError, match="the cached arrays differ"):
        data.measure("toy", str(toy / "toy" / "1.0.0"))


def test_what_is_not_there_is_one_line(tmp_path, capsys):
    assert data.main(["toy", f"--data_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown dataset 'toy'")
