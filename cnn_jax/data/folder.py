"""A folder of class folders of pictures, as a dataset.

    data_dir/train/cat/0001.jpg       split 'train', class 'cat'
    data_dir/train/dog/more/any.png   subfolders of a class are allowed
    data_dir/test/cat/0002.webp       a test split may lack classes

Classes are numbered by sorted name. Pictures are recognised by suffix
(`pictures.SUFFIXES`). System files (`LEFT_BEHIND`, names that begin with a dot) are
ignored, and so are non-picture files beside folders, such as licences and lists. A
folder of pictures must contain no other files.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence

from cnn_jax import names
from cnn_jax.data import pictures
from cnn_jax.data.disk import OnDisk, open_parts

# Files of Windows, macOS, Synology and ext file systems, in lower case.
LEFT_BEHIND = (
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin"),
    *("system volume information", "icon\r", "__macosx", "@eadir", "lost+found"),
)


class Folder:
    """A `Reader` of class folders.

    Args:
      path: the folder that holds the splits.
      train_split: the split that defines the classes.
      channels: 1 (grey) or 3 (RGB).

    Raises:
      ConfigError: no such folder, or no classes in it.
    """

    name = "folder"
    sides: tuple[int | None, int | None] = (None, None)

    def __init__(self, path: str, train_split: str, channels: int = 3):
        if channels not in (1, 3):
            raise names.ConfigError(f"folder: channels must be 1 or 3, got {channels}")
        self.path = os.path.abspath(os.path.expanduser(path))
        self.channels = channels
        self.train_split = train_split
        self.class_names = tuple(self._classes(train_split))
        self.num_classes = len(self.class_names)
        self._found: dict[str, tuple[list[str], list[int]]] = {}

    def count(self, split: str) -> int:
        """Examples of a split.

        Raises:
          ConfigError: no such folder, classes that the training split lacks, a
            training class without pictures, or a file that is no picture.
        """
        return len(self._examples(split)[0])

    def fetch(self, split: str, numbers: Sequence[int]) -> list[tuple[bytes, int]]:
        """Contents of picture files and their classes.

        Raises:
          ConfigError: a file cannot be read.
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

    def labels(self, split: str) -> list[int]:
        """The classes of a split's files."""
        return self._examples(split)[1]

    def _examples(self, split: str) -> tuple[list[str], list[int]]:
        if split not in self._found:
            self._found[split] = self._list(split)
        return self._found[split]

    def _classes(self, split: str) -> list[str]:
        place = os.path.join(self.path, split)
        if not os.path.isdir(place):
            there = [entry.name for entry in _visible(self.path) if entry.is_dir()]
            raise names.choices(f"split of folder {self.path!r}", split, there)
        entries = _visible(place)
        loose = [entry.path for entry in entries if _is_picture(entry)]
        classes = [entry.name for entry in entries if entry.is_dir()]
        _check_names(place, entries)
        if loose or not classes:
            found = f"{loose[0]!r}" if loose else "none"
            raise names.ConfigError(
                f"{place!r} must contain one folder of images per class, but it "
                f"contains {found}"
            )
        return classes

    def _list(self, split: str) -> tuple[list[str], list[int]]:
        classes = self._classes(split)
        place = os.path.join(self.path, split)
        unknown = [name for name in classes if name not in self.class_names]
        if unknown:
            raise names.ConfigError(
                f"{place!r} has classes that the training split lacks: "
                f"{names.few(unknown)}; both need a folder for each class"
            )
        files: list[str] = []
        labels: list[int] = []
        empty = []
        for label, name in enumerate(self.class_names):
            inside = os.path.join(place, name)
            found = list(_pictures(inside)) if name in classes else []
            if not found:
                empty.append(name)
            files += found
            labels += [label] * len(found)
        if empty and split == self.train_split:
            raise names.ConfigError(
                f"class folder {os.path.join(place, empty[0])!r} contains no images"
            )
        if empty:
            logging.getLogger(__name__).warning(
                "%s has no images of %s", place, names.few(empty)
            )
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
      train_split: the subfolder to train on; '' if ``data_dir`` itself holds the
        class folders.
      test_split: the subfolder to evaluate on.
      validation_size: 0, or the number of training examples that are held out
        and evaluated in place of ``test_split`` (see `open_parts`).
      channels: 1 (grey) or 3 (RGB).
      size: for a set in memory with pictures of several sizes, the side to which
        their central squares are resized; 0 to keep pictures unchanged.
      damaged: for a set in memory, 'refuse' damaged pictures or 'accept' their
        decodable part (see `pictures.decode`).

    Returns:
      The dataset, not yet read.

    Raises:
      ConfigError: the folders do not have this form.
    """
    if not data_dir:
        raise names.ConfigError("dataset 'folder' needs data_dir, the folder's path")
    reader = Folder(data_dir, train_split, channels)
    return open_parts(reader, train_split, test_split, validation_size, size, damaged)


def _visible(path: str) -> list[os.DirEntry]:
    """The entries of a directory, sorted by name, without system files."""
    try:
        with os.scandir(path) as entries:
            found = [
                entry
                for entry in entries
                if not entry.name.startswith(".")
                and entry.name.lower() not in LEFT_BEHIND
            ]
    except FileNotFoundError as error:
        raise names.ConfigError(f"folder {path!r} does not exist") from error
    except OSError as error:
        raise names.ConfigError(f"{path!r} cannot be read: {error.strerror}") from error
    return sorted(found, key=lambda entry: entry.name)


def _check_names(place: str, entries: Iterable[os.DirEntry]) -> None:
    """Refuse what would drop a class, or could not be written down."""
    for entry in entries:
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise names.ConfigError(f"{entry.path!r} links to nothing")
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise names.ConfigError(
                f"{place!r} has a class whose name is not UTF-8: {entry.name!r}"
            ) from None


def _is_picture(entry: os.DirEntry) -> bool:
    return not entry.is_dir() and entry.name.lower().endswith(pictures.SUFFIXES)


def _pictures(path: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """The picture files of a class, including its subfolders."""
    above = (*above, os.path.realpath(path))
    entries = _visible(path)
    beside_folders = any(entry.is_dir() for entry in entries)
    for entry in entries:
        if entry.is_dir():
            if os.path.realpath(entry.path) in above:
                raise names.ConfigError(f"{entry.path!r} links to a parent folder")
            yield from _pictures(entry.path, above)
        elif _is_picture(entry):
            yield entry.path
        elif not beside_folders:
            raise names.ConfigError(
                f"{entry.path!r} is not an image ({', '.join(pictures.SUFFIXES)}); "
                "convert it or move it elsewhere"
            )
