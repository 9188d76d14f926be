"""Streams: order, resuming, hosts, evaluation, and workers that fail.

One file, beyond 350 lines, because the tests share the pictures that are streamed.
"""

import itertools
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from cnn_jax import names
from cnn_jax.data import sources, streams, transforms
from tests.data.conftest import encode, write_set
from tests.tiers import fast

TRAIN, TEST = 13, 5
STREAM = {
    "train": {"name": "scale", "size": 8, "shorter": (10, 14)},
    "test": {"name": "center", "size": 8, "shorter": 10},
}


def write_folder(root, counts=(("train", TRAIN), ("test", TEST))) -> str:
    """Uniform images whose colour encodes their index; two classes."""
    for split, count in counts:
        for number in range(count):
            folder = pathlib.Path(root, split, "ab"[number % 2])
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.full((16, 20, 3), 10 * number, np.uint8)
            (folder / f"{number:03}.png").write_bytes(encode(pixels))
    return str(root)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_folder(tmp_path_factory.mktemp("pictures"))


class Listed(transforms.CenterCrop):
    """A user's crop whose text has a list."""

    def __repr__(self):
        return "Listed([8])"


def open_stream(folder, index=0, count=1, **fields):
    section = {"name": "folder", "data_dir": folder, "stream": {**STREAM, **fields}}
    return sources.open_source(section, index, count)


def first(source, count, *, batch_size=4, step=0, seed=0, state=b""):
    batches = source.train_batches(seed, batch_size, step, state)
    found = list(itertools.islice(batches, count))
    batches.close()
    return found


def told(items) -> list[int]:
    """The indices of the images in items, from their colours."""
    images = np.concatenate([item["image"] for item in items])
    return (images[:, 0, 0, 0] // 10).tolist()


def equal(one, other) -> None:
    assert len(one) == len(other)
    for (item, state), (item2, state2) in zip(one, other, strict=True):
        np.testing.assert_array_equal(item["image"], item2["image"])
        np.testing.assert_array_equal(item["label"], item2["label"])
        assert state == state2


def test_an_epoch_is_every_example_once(folder):
    source = open_stream(folder)
    assert source.image_shape == (8, 8, 3)
    assert (source.num_train, source.num_test, source.num_classes) == (TRAIN, TEST, 2)
    items = [item for item, _ in first(source, 13)]
    epochs = np.reshape(told(items), (4, TRAIN))
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(TRAIN), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    labels = np.concatenate([item["label"] for item in items])
    np.testing.assert_array_equal(labels, np.ravel(epochs) % 2)


def test_same_order_as_in_memory(folder):
    section = {"name": "folder", "data_dir": folder}
    memory = sources.open_source(section)
    resident = memory.resident()
    batches = memory.train_batches(3, 4, 0)
    for item, _ in first(open_stream(folder), 5, seed=3):
        index = next(batches)[0]["index"]
        colours = resident["image"][index][:, 0, 0, 0]
        np.testing.assert_array_equal(item["image"][:, 0, 0, 0], colours)


def test_crops_are_drawn_anew_each_epoch_and_by_seed(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "train" / "a").mkdir(parents=True)
    noise = rng.integers(0, 256, (16, 20, 3)).astype(np.uint8)
    for number in range(2):
        (tmp_path / "train" / "a" / f"{number}.png").write_bytes(encode(noise))
    section = {"name": "folder", "data_dir": str(tmp_path), "validation_size": 1}
    source = sources.open_source({**section, "stream": STREAM})
    images = [item["image"][0] for item, _ in first(source, 6, batch_size=1)]
    images += [item["image"][0] for item, _ in first(source, 6, batch_size=1, seed=1)]
    assert len({image.tobytes() for image in images}) > 9


@pytest.mark.parametrize("workers", fast([0], [0, 2]))
def test_resumes_in_the_middle_of_an_epoch(folder, workers):
    whole = first(open_stream(folder), 9)
    state = whole[4][1]
    rest = first(open_stream(folder, workers=workers), 4, step=5, state=state)
    # in private memory, not in the memory shared with the workers
    assert {type(value) for item, _ in rest for value in item.values()} == {np.ndarray}
    equal(rest, whole[5:])


def test_state_of_another_stream_is_refused(folder):
    source = open_stream(folder)
    state = first(source, 3)[-1][1]
    with pytest.raises(names.ConfigError, match="seed was 0, is 1"):
        first(source, 1, step=3, seed=1, state=state)
    with pytest.raises(names.ConfigError, match="position was 12, is 16"):
        first(source, 1, step=4, state=state)
    other = json.dumps({**json.loads(state), "data": "x"}).encode()
    with pytest.raises(names.ConfigError, match="data was 'x', is"):
        first(source, 1, step=3, state=other)
    # lists of a config, as earlier versions stored them
    old = json.loads(state)["transform"].translate(str.maketrans("()", "[]"))
    older = json.dumps({**json.loads(state), "transform": old}).encode()
    assert old != json.loads(state)["transform"]
    first(source, 1, step=3, state=older)
    train = {"name": f"{__name__}:Listed", "size": 8, "shorter": 10}
    source = open_stream(folder, train=train)
    state = first(source, 3)[-1][1]
    assert "[8]" in state.decode()
    first(source, 1, step=3, state=state)


class Nameless:
    """A user's crop whose text is its address."""

    views = 1

    def __init__(self, size: int):
        self.size = size

    def __call__(self, *arguments):
        return transforms.CenterCrop(self.size, 10)(*arguments)


def test_a_crop_without_a_text_resumes(folder):
    train = {"name": f"{__name__}:Nameless", "size": 8}
    source = open_stream(folder, train=train)
    state = first(source, 3)[-1][1]
    again = open_stream(folder, train=dict(reversed(train.items())))
    assert first(again, 1, step=3, state=state)
    address = f"<{__name__}.Nameless object at 0x7f>"  # as earlier versions stored it
    old = json.dumps({**json.loads(state), "transform": address}).encode()
    assert first(again, 1, step=3, state=old)
    other = open_stream(folder)
    with pytest.raises(names.ConfigError, match=r"transform was .*Nameless"):
        first(other, 1, step=3, state=state)


@pytest.mark.parametrize("stream", [{}, STREAM])
def test_a_changed_picture_of_the_same_size_changes_the_fingerprint(tmp_path, stream):
    place = tmp_path / "train" / "a"
    place.mkdir(parents=True)
    pixels = np.zeros((4, 4, 3), np.uint8)
    for number in range(3):
        pixels[0, 0, 0] = 10 * number
        (place / f"{number}.bmp").write_bytes(encode(pixels, "bmp"))
    section = {"name": "folder", "data_dir": str(tmp_path), "test_split": "train"}
    section["stream"] = stream
    before = sources.open_source(section).fingerprint
    assert sources.open_source(section).fingerprint == before
    content = (place / "1.bmp").read_bytes()
    pixels[0, 0, 0] += 1
    changed = encode(pixels, "bmp")
    assert len(changed) == len(content)
    (place / "1.bmp").write_bytes(changed)
    assert sources.open_source(section).fingerprint != before


@pytest.mark.slow
def test_two_processes_read_disjoint_shards_whose_union_is_the_set(folder):
    code = textwrap.dedent("""
        import itertools, sys
        from cnn_jax.data import sources
        from tests.data.test_streams import open_stream, told
        source = open_stream(sys.argv[1], int(sys.argv[2]), 2)
        batches = source.train_batches(5, 2, 0)
        print(*told(item for item, _ in itertools.islice(batches, 13)))
        batches.close()
        print(*(int(item["mask"].sum()) for item in source.eval_batches("test", 4)))
        """)
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", code, folder, str(index)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    lines = [host.communicate(timeout=120)[0].splitlines() for host in hosts]
    shards = np.array([[int(word) for word in line[0].split()] for line in lines])
    assert shards.shape == (2, 13)
    stream = shards.T.ravel()  # batches of two, a row from each host
    for epoch in stream.reshape(2, TRAIN):
        assert sorted(epoch) == list(range(TRAIN))
    masks = [[int(word) for word in line[1].split()] for line in lines]
    assert masks == [[2, 1], [2, 0]]


@pytest.mark.parametrize("clean_images", [0, 6])
def test_evaluation_sees_every_example_once(folder, clean_images):
    source = open_stream(folder, clean_images=clean_images)
    for split, expected in (
        ("test", range(TEST)),
        ("train", (0, 2, 4, 6, 8, 10) if clean_images else range(TRAIN)),
    ):
        seen = []
        for item in source.eval_batches(split, 4):
            batch = jax.jit(source.take)({}, item)
            assert batch["image"].shape == (4, 8, 8, 3)
            real = np.asarray(batch["mask"]) == 1
            seen += (np.asarray(batch["image"])[real, 0, 0, 0] // 10).tolist()
        # the folder holds the even numbers (class a) before the odd ones
        order = [*range(0, 13, 2), *range(1, 13, 2)]
        if split == "train" and clean_images:
            assert seen == [order[place] for place in (0, 2, 4, 6, 8, 10)]
        else:
            assert sorted(seen) == list(expected)


def test_ten_crop_views_follow_one_another(folder):
    ten = {"name": "ten_crop", "size": 8, "shorter": 10}
    source = open_stream(folder, test=ten)
    item = next(source.eval_batches("test", 4))
    assert item["image"].shape == (4, 10, 8, 8, 3)
    batch = source.take({}, item)
    assert batch["image"].shape == (40, 8, 8, 3)
    assert batch["label"].shape == batch["mask"].shape == (4,)
    assert set((batch["image"][10:20, 0, 0, 0] // 10).tolist()) == {2}


def test_statistics_are_measured_once_and_kept(folder, monkeypatch):
    source = open_stream(folder)
    found = source.statistics()
    expected = 10 * np.arange(TRAIN) / 255
    assert found.pixel_mean.shape == (8, 8, 3)
    np.testing.assert_allclose(found.pixel_mean, expected.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.pixel_std, expected.std(), rtol=1e-6)
    monkeypatch.delattr(streams.Stream, "_measure")
    again = open_stream(folder).statistics()
    np.testing.assert_array_equal(again.pixel_mean, found.pixel_mean)
    with pytest.raises(AttributeError):
        open_stream(folder, statistics_images=4).statistics()


def test_prepared_sets_are_streamed_by_workers(tmp_path, pictures):
    splits = {"train": pictures(6, (20, 16, 3), "jpeg"), "test": pictures(2)}
    write_set(tmp_path, "toy", splits)
    section = {"name": "toy", "data_dir": str(tmp_path)}
    plain, worked = (
        sources.open_source({**section, "stream": {**STREAM, "workers": workers}})
        for workers in (0, 1)
    )
    equal(first(plain, 4), first(worked, 4))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_corrupt_picture_is_named(tmp_path, workers):
    folder = write_folder(tmp_path)
    bad = pathlib.Path(folder, "train", "b", "003.png")
    bad.write_bytes(bad.read_bytes()[:-50])
    with pytest.raises(names.ConfigError, match=r"train/b/003\.png is not a readable"):
        first(open_stream(folder, workers=workers), 5)


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_memory_and_stream_refuse_the_same_damage(tmp_path, form):
    place = tmp_path / "train" / "a"
    place.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    encoded = encode(noise, form)
    hurt = encoded[: len(encoded) // 2] + bytes(len(encoded) // 2)
    for number, content in enumerate((encoded, hurt)):
        (place / f"{number}.{form}").write_bytes(content)
    section = {"name": "folder", "data_dir": str(tmp_path), "test_split": "train"}
    said = []
    for key, stream in (("dataset", {}), ("dataset.stream", STREAM)):
        with pytest.raises(names.ConfigError) as raised:
            first(sources.open_source({**section, "stream": stream}), 1, batch_size=2)
        said.append(str(raised.value).replace(f"{key}.damaged", "KEY"))
        assert str(place / f"1.{form}") in said[-1]
    assert said[0] == said[1]
    assert ("KEY='accept' uses" in said[0]) == (form == "jpeg")
    for fields in ({"damaged": "accept"}, {"stream": {**STREAM, "damaged": "accept"}}):
        if form == "jpeg":
            assert first(sources.open_source({**section, **fields}), 1, batch_size=2)
    with pytest.raises(names.ConfigError, match=r"use dataset\.stream\.dam"):
        sources.open_source({**section, "damaged": "accept", "stream": STREAM})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("records", r"toy-train.* is damaged: "),
        ("record", r"toy-train\S*, record \d is damaged: "),
        ("label", r"toy-train.*, record 4: label 7 is outside 0\.\.2"),
    ],
)
def test_damaged_set_is_named(tmp_path, pictures, damage, message):
    examples = pictures(6, (20, 16, 3), "jpeg")
    examples[4] = (examples[4][0], 7)
    info = pathlib.Path(write_set(tmp_path, "toy", {"train": examples}, num_classes=8))
    file = next(info.glob("toy-train*"))
    content = file.read_bytes()
    if damage == "records":
        file.write_bytes(content[:1000])
    elif damage == "record":
        assert b"JFIF" in content
        file.write_bytes(content.replace(b"JFIF", b"damn"))
    else:
        features = info / "features.json"
        features.write_text(features.read_text().replace('"8"', '"3"'))
    section = {"name": "toy", "data_dir": str(tmp_path), "test_split": "train"}
    with pytest.raises(names.ConfigError, match=message):
        first(sources.open_source({**section, "stream": STREAM}), 4)


def test_killed_worker_is_noticed(folder):
    batches = open_stream(folder, workers=1).train_batches(0, 4, 0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(OSError, match=r"was killed by SIGKILL; .* again to resume"):
        list(itertools.islice(batches, 100))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_all_processes_leave_the_workers_alive(folder, number):
    """A run that a signal reaches needs batches until it has saved a checkpoint."""
    batches = open_stream(folder, workers=1).train_batches(0, 4, 0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, number)
    assert len(list(itertools.islice(batches, 30))) == 30
    assert worker.is_alive()


@pytest.mark.slow
def test_a_clean_end_prints_nothing(folder):
    """Even if device arrays made from the last batches live until the end."""
    code = textwrap.dedent("""
        import sys
        import jax
        from tests.data.test_streams import first, open_stream
        items = [item for item, _ in first(open_stream(sys.argv[1], workers=2), 3)]
        kept = jax.device_put(items)
        """)
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_full_shared_memory_says_what_to_do():
    assert "/dev/shm is full: enlarge it" in str(streams.death(-7))
    assert "ended with exit code 3; run the same" in str(streams.death(3))


def test_batches_go_through_pipes_where_shared_memory_is_small(
    folder, monkeypatch, caplog
):
    """As in Docker, whose default is 64 MB."""
    plain = first(open_stream(folder), 3)
    place = folder + "/shm"  # no room for a batch of 4 images of 8x8 pixels
    small = shutil.disk_usage(folder)._replace(free=2000)
    monkeypatch.setattr(streams.shutil, "disk_usage", {place: small}.__getitem__)
    monkeypatch.setattr(streams, "SHARED_MEMORY", place)
    given = []
    options = streams.grain.experimental.DatasetOptions
    monkeypatch.setattr(
        streams.grain.experimental,
        "DatasetOptions",
        lambda **fields: given.append(fields) or options(**fields),
    )
    equal(first(open_stream(folder, workers=1), 3), plain)
    assert given == [{"min_shm_size": streams.LARGEST}]
    assert "in Docker, pass --shm-size=1m" in caplog.text


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_run(folder):
    code = textwrap.dedent("""
        import sys
        from tests.data.test_streams import open_stream
        batches = open_stream(sys.argv[1], workers=2).train_batches(0, 4, 0)
        next(batches)
        print("ready", flush=True)
        sys.stdin.read()
        """)
    run = subprocess.Popen(
        [sys.executable, "-c", code, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout.readline() == "ready\n"
    run.kill()
    # the pipe stays open for as long as any child of the run lives
    assert run.communicate(timeout=20)[0] == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": -1}, "workers -1 is negative"),
        ({"workers": 10**6}, "workers must be at most 1024, got 1000000"),
        ({"worker": 2}, "'worker' .did you mean 'workers'"),
        ({"test": {"name": "center", "size": 9, "shorter": 10}}, "equal, got 8 and 9"),
        ({"damaged": "skip"}, "damaged must be one of 'refuse', 'accept'"),
    ],
)
def test_bad_sections(folder, fields, message):
    with pytest.raises(names.ConfigError, match=message):
        open_stream(folder, **fields)


def test_arrays_cannot_be_streamed():
    section = {"name": "tests.data.test_prepared:plugin", "rows": 3, "stream": STREAM}
    with pytest.raises(names.ConfigError, match="is in memory and cannot be stream"):
        sources.open_source(section)


def test_size_is_for_sets_in_memory(folder):
    section = {"name": "folder", "data_dir": folder, "size": 8, "stream": STREAM}
    with pytest.raises(names.ConfigError, match=r"dataset\.size 8 applies to"):
        sources.open_source(section)


def test_missing_package_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "cnn_jax.data.streams", None)
    monkeypatch.delattr("cnn_jax.data.streams")
    with pytest.raises(names.ConfigError, match=r"pip install -e '\.\[streams\]'"):
        open_stream(folder)
