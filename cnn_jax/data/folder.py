"""A folder of class folders of JPEG and PNG files, as a data set.

    data_dir/train/cat/0001.jpg       split 'train', class 'cat'
    data_dir/train/dog/anything.png
    data_dir/test/cat/0002.jpg        the test split has the same classes

Classes are numbered in the order of their sorted names. Names that begin with a
dot are not looked at; any other file that is no picture is refused.
"""

import os
from collections.abc import Sequence

from cnn_jax import names
from cnn_jax.data import pictures
from cnn_jax.data.disk import OnDisk, open_parts

SUFFIXES = (".jpg", ".jpeg", ".png")


class Folder:
    """A `Reader` of class folders.

    Args:
      path: the folder that holds the splits.
      train_split: the split that says which classes there are.
      channels: 1 (grey) or 3 (RGB).

    Raises:
      ConfigError: no such folder, or no classes in it.
    """

    name = "folder"
    sides = (None, None)

    def __init__(self, path: str, train_split: str, channels: int = 3):
        if channels not in (1, 3):
            raise names.ConfigError(f"folder: channels {channels} must be 1 or 3")
        self.path = os.path.abspath(os.path.expanduser(path))
        self.channels = channels
        self.classes = self._classes(train_split)
        self.num_classes = len(self.classes)
        self._found: dict[str, tuple[list[str], list[int]]] = {}

    def count(self, split: str) -> int:
        """Examples of a split.

        Raises:
          ConfigError: no such folder, other classes than in the training split,
            an empty class folder, or a file that is no picture.
        """
        return len(self._examples(split)[0])

    def fetch(self, split: str, numbers: Sequence[int]) -> list[tuple[bytes, int]]:
        """Contents of picture files and their classes.

        Raises:
          ConfigError: a file that cannot be read.
        """
        files, labels = self._examples(split)
        found = []
        for number in numbers:
            try:
                with open(files[number], "rb") as file:
                    found.append((file.read(), labels[number]))
            except OSError as error:
                raise names.ConfigError(
                    f"{files[number]} cannot be read: {error.strerror}"
                ) from error
        return found

    def where(self, split: str, number: int) -> str:
        """The file of an example."""
        return self._examples(split)[0][number]

    def files(self, split: str) -> list[str]:
        """The files of a split, in the order of the examples."""
        return self._examples(split)[0]

    def _examples(self, split: str) -> tuple[list[str], list[int]]:
        if split not in self._found:
            self._found[split] = self._list(split)
        return self._found[split]

    def _classes(self, split: str) -> list[str]:
        place = os.path.join(self.path, split)
        if not os.path.isdir(place):
            there = sorted(entry.name for entry in _visible(self.path))
            raise names.choices(f"split of folder {self.path!r}", split, there)
        entries = _visible(place)
        files = [entry.path for entry in entries if not entry.is_dir()]
        if files or not entries:
            found = files[0] if files else "nothing"
            raise names.ConfigError(
                f"{place!r} must hold class folders only; it holds {found}"
            )
        return [entry.name for entry in entries]

    def _list(self, split: str) -> tuple[list[str], list[int]]:
        classes = self._classes(split)
        if classes != self.classes:
            other = sorted(set(classes) ^ set(self.classes))
            raise names.ConfigError(
                f"{os.path.join(self.path, split)!r} and the training split differ "
                f"in their classes: {', '.join(other)}"
            )
        files, labels = [], []
        for label, name in enumerate(classes):
            place = os.path.join(self.path, split, name)
            entries = _visible(place)
            if not entries:
                raise names.ConfigError(f"class folder {place!r} is empty")
            for entry in entries:
                if not entry.name.lower().endswith(SUFFIXES) or entry.is_dir():
                    raise names.ConfigError(
                        f"{entry.path!r} is no picture ({', '.join(SUFFIXES)})"
                    )
                files.append(entry.path)
                labels.append(label)
        return files, labels


def open_set(
    data_dir: str,
    train_split: str = "train",
    test_split: str = "test",
    validation_size: int = 0,
    size: int = 0,
    damaged: pictures.Damaged = "refuse",
    channels: int = 3,
) -> OnDisk:
    """A folder of class folders.

    Args:
      data_dir: the folder that holds the splits.
      train_split: the subfolder to train on; '' where the class folders are
        in ``data_dir`` itself.
      test_split: the subfolder to evaluate on.
      validation_size: 0, or the number of training examples that are held out
        and evaluated in place of ``test_split`` (see `open_parts`).
      channels: 1 (grey) or 3 (RGB).
      size: side to which the central squares of pictures are resized, for a set
        in memory whose pictures are of several sizes; 0 for pictures as they are.
      damaged: 'refuse' a damaged picture, or 'accept' what could be decoded of it
        (see `pictures.decode`), for a set in memory.

    Returns:
      The data set, not yet read.

    Raises:
      ConfigError: folders that do not have this form.
    """
    if not data_dir:
        raise names.ConfigError("dataset 'folder' needs data_dir, the folder's path")
    reader = Folder(data_dir, train_split, channels)
    return open_parts(reader, train_split, test_split, validation_size, size, damaged)


def _visible(path: str) -> list[os.DirEntry]:
    """What is in a directory, sorted by name, without dot files."""
    if not os.path.isdir(path):
        raise names.ConfigError(f"no folder {path!r}")
    with os.scandir(path) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(found, key=lambda entry: entry.name)
