"""Arrays cached with a data set, and checksums of its files."""

import hashlib
import os

import numpy as np
import pytest

from cnn_jax.data import cache


@pytest.fixture
def store(tmp_path, monkeypatch) -> cache.Cache:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "set").mkdir()
    return cache.Cache(str(tmp_path / "set"))


def test_an_entry_comes_back_and_replaces_the_older(store):
    assert store.read("x-1") is None
    store.write("x-1", {"a": np.arange(3)}, "x-*")
    store.write("y-1", {"a": np.arange(5)}, "y-*")
    store.write("x-2", {"a": np.arange(4)}, "x-*")
    np.testing.assert_array_equal(store.read("x-2")["a"], np.arange(4))
    folder = os.path.join(store.beside, cache.FOLDER)
    assert sorted(os.listdir(folder)) == ["x-2.npz", "y-1.npz"]


def test_damaged_entry_is_no_entry(store):
    store.write("x", {"a": np.arange(1000)}, "x")
    path = store.folders()[0] / "x.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert store.read("x") is None
    path.write_bytes(content[:100])
    assert store.read("x") is None


def test_any_damage_of_an_entry_makes_it_none(store):
    store.write("x", {"a": np.arange(50)}, "x")
    path = store.folders()[0] / "x.npz"
    content = path.read_bytes()
    # the archive's directory, where zipfile raises most kinds of errors
    for place in range(len(content) - 70, len(content)):
        for value in (1, 255):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            found = store.read("x")
            if found is not None and "a" in found:
                np.testing.assert_array_equal(found["a"], np.arange(50))


def test_read_only_set_is_left_alone(store):
    os.chmod(store.beside, 0o555)
    try:
        store.write("x", {"a": np.arange(3)}, "x")
        assert os.listdir(store.beside) == []
        np.testing.assert_array_equal(store.read("x")["a"], np.arange(3))
    finally:
        os.chmod(store.beside, 0o755)


def test_cache_that_cannot_be_written_is_done_without(store, tmp_path):
    os.chmod(store.beside, 0o555)
    (tmp_path / "home").write_text("a file where a folder should be")
    store.write("x", {"a": np.arange(3)}, "x")
    assert store.read("x") is None
    os.chmod(store.beside, 0o755)


@pytest.mark.parametrize("remember", [False, True])
def test_checksums_follow_the_content(store, remember):
    file = os.path.join(store.beside, "f")
    with open(file, "w") as out:
        out.write("abc")
    first = store.checksums([file], remember)
    assert first == {
        "f": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }
    assert store.checksums([file], remember) == first
    for number in range(20):  # of the same size, consecutively
        with open(file, "w") as out:
            out.write(f"a{number:02}")
        found = store.checksums([file], remember)
        assert found == {"f": hashlib.sha256(f"a{number:02}".encode()).hexdigest()}


def test_an_edit_of_the_same_size_is_noticed_by_its_time(store):
    file = os.path.join(store.beside, "f")
    seen = set()
    for content, time in (("abc", 10**9), ("abd", 10**9 + 1), ("abc", 10**9)):
        with open(file, "w") as out:
            out.write(content)
        os.utime(file, ns=(time, time))
        seen |= set(store.checksums([file], remember=True).values())
    assert len(seen) == 2


def test_remembered_checksum_is_not_computed_again(store, monkeypatch):
    file = os.path.join(store.beside, "f")
    with open(file, "w") as out:
        out.write("abc")
    os.utime(file, (10**9, 10**9))
    first = store.checksums([file], remember=True)
    monkeypatch.setattr(cache, "sha256", lambda path: "computed")
    assert store.checksums([file], remember=True) == first
    assert store.checksums([file], remember=False) == {"f": "computed"}
