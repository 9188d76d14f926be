"""``python -m experiments.prepare``."""

import concurrent.futures
import os
import pathlib
import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from cnn_jax import data, names
from cnn_jax.data import preparation
from experiments import prepare
from tests.data.conftest import encode, write_set

PIXELS = np.full((4, 4, 3), 7, np.uint8)

with tfds.core.registered.skip_registration():

    class Toy(tfds.core.GeneratorBasedBuilder):
        """A third-party set whose files the user downloads manually."""

        VERSION = tfds.core.Version("1.2.3")
        MANUAL_DOWNLOAD_INSTRUCTIONS = "Fetch\n  toy.txt."
        name = "toy"
        url_infos = {}  # noqa: RUF012

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(4, 4, 3)),
                    "label": tfds.features.ClassLabel(num_classes=2),
                }
            )
            return tfds.core.DatasetInfo(
                builder=self, features=features, supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            count = int((dl_manager.manual_dir / "toy.txt").read_text())
            return {
                "train": self._generate_examples(count),
                "test": self._generate_examples(1),
            }

        def _generate_examples(self, count):
            for number in range(count):
                yield number, {"image": encode(PIXELS), "label": number % 2}


TOY = f"{__name__}:Toy"


def failed(capsys, *arguments) -> str:
    assert prepare.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_prepares_what_a_run_then_reads(tmp_path, capsys):
    manual = tmp_path / "by_hand"
    manual.mkdir()
    (manual / "toy.txt").write_text("3")
    arguments = [TOY, f"--data_dir={tmp_path}", f"--manual_dir={manual}"]
    assert prepare.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "classes: 2" in printed
    assert "train: 3" in printed
    dataset = data.load("toy", data_dir=str(tmp_path))
    np.testing.assert_array_equal(dataset.train.images, np.tile(PIXELS, (3, 1, 1, 1)))
    (manual / "toy.txt").unlink()
    assert prepare.main(arguments) == 0  # the set already exists


def test_files_to_fetch_by_hand_are_named(tmp_path, capsys):
    place = os.path.join(tmp_path, "downloads", "manual")
    error = failed(capsys, TOY, f"--data_dir={tmp_path}")
    assert f"put them into {place!r}" in error
    assert "Fetch toy.txt." in error


def test_read_only_directory_is_left_alone(tmp_path, capsys):
    (tmp_path / "data").mkdir(mode=0o555)
    error = failed(capsys, TOY, f"--data_dir={tmp_path / 'data'}")
    assert "it is read-only" in error
    assert os.listdir(tmp_path / "data") == []


def test_failure_while_preparing_is_one_line(tmp_path, capsys):
    (tmp_path / "other.txt").write_text("")
    arguments = (TOY, f"--data_dir={tmp_path / 'x'}", f"--manual_dir={tmp_path}")
    assert "could not be prepared" in failed(capsys, *arguments)
    assert not (tmp_path / "x" / "toy" / "1.2.3").exists()


def test_digits_need_nothing(tmp_path, capsys):
    assert prepare.main(["digits", f"--data_dir={tmp_path}"]) == 0
    assert "train: 1,500" in capsys.readouterr().out


def test_tensorflow_is_asked_for(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(preparation, "NEEDED", ("a_package_that_is_not_there",))
    error = failed(capsys, "mnist", f"--data_dir={tmp_path}")
    assert "preparing 'mnist' needs a_package_that_is_not_there" in error
    assert "pip install -e '.[prepare]'" in error


def test_unknown_name(capsys):
    assert "did you mean 'cifar10'" in failed(capsys, "cifar_10")
    error = failed(capsys, "nosuch")
    assert "less similar names" in error
    assert len(error) < 200
    assert "unknown attribute" in failed(capsys, f"{__name__}:Tow")


def test_what_is_there_needs_no_tensorflow(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preparation, "NEEDED", ("a_package_that_is_not_there",))
    write_set(tmp_path, "mnist", {"train": [(encode(PIXELS), 0)] * 2})
    assert prepare.main(["mnist", f"--data_dir={tmp_path}"]) == 0
    assert "train: 2" in capsys.readouterr().out


@pytest.fixture
def tfrecords(tmp_path):
    """The directory of a set in tfrecord files, the usual format."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    examples = [(encode(image), number % 3) for number, image in enumerate(pictures)]
    path = write_set(tmp_path, "toy", {"train": examples[:3], "test": examples[3:]})
    for file in pathlib.Path(path).glob("*array_record*"):
        stored = ArrayRecordReader(str(file)).read_all()
        content = b"".join(
            struct.pack("<Q", len(record)) + b"----" + record + b"----"
            for record in stored
        )
        new = file.with_name(file.name.replace("array_record", "tfrecord"))
        new.write_bytes(content)
        file.unlink()
    info = pathlib.Path(path, "dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    return pathlib.Path(path), pictures


def test_tfrecords_are_written_as_array_record_beside_them(
    tfrecords, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(preparation, "NEEDED", ("a_package_that_is_not_there",))
    path, pictures = tfrecords
    before = {file.name for file in path.iterdir()}
    with pytest.raises(names.ConfigError, match=r"convert them with `.*prepare toy "):
        data.load("toy", data_dir=str(tmp_path))
    for _ in range(2):
        assert prepare.main(["toy", f"--data_dir={tmp_path}"]) == 0
        assert "train: 3" in capsys.readouterr().out
    found = data.load("toy", data_dir=str(tmp_path))
    np.testing.assert_array_equal(found.train.images, pictures[:3])
    np.testing.assert_array_equal(found.test.labels, [0, 1])
    more = {file.name for file in path.iterdir()} - before
    assert more == {
        f"toy-{split}.array_record-00000-of-00001" for split in ("train", "test")
    }


def test_a_tfrecord_file_that_is_cut_off_is_named(tfrecords, tmp_path, capsys):
    path, _ = tfrecords
    (file,) = path.glob("toy-train.tfrecord*")
    file.write_bytes(file.read_bytes()[:-30])
    error = failed(capsys, "toy", f"--data_dir={tmp_path}")
    assert "toy-train.tfrecord-00000-of-00001' has 2 intact records" in error
    assert "dataset_info.json declares 3" in error
    assert not list(path.glob("toy-train.array_record*"))


def test_several_at_once_find_the_work_of_one(tmp_path):
    manual = tmp_path / "by_hand"
    manual.mkdir()
    (manual / "toy.txt").write_text("3")
    one = (TOY, str(tmp_path), str(manual))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: preparation.prepare(*one), range(3)))
    assert [each["train"] for each in found] == [3, 3, 3]


def test_ctrl_c_is_a_word(tmp_path, capsys, monkeypatch):
    def build(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(Toy, "download_and_prepare", build)
    (tmp_path / "x.txt").touch()
    given = [TOY, f"--data_dir={tmp_path}", f"--manual_dir={tmp_path}"]
    assert prepare.main(given) == 130
    assert capsys.readouterr().err == "interrupted\n"
