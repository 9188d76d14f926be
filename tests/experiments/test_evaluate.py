"""``python -m experiments.evaluate`` and ``python -m experiments.export``."""

import types

import jax
import numpy as np
import pytest
from PIL import Image

import cnn_jax
from cnn_jax.training.run import train
from experiments import evaluate, export
from tests import tiny

NAMES = ("ant", "bee", "cat")


def named(split):
    """The images of `tiny.noise`, with class names."""
    part = getattr(tiny.noise(40), split)
    return part.images, part.labels, NAMES


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Directory and result of a run with class names."""
    place = tmp_path_factory.mktemp("evaluate") / "run"
    dataset = {"name": f"{__name__}:named"}
    config = {**tiny.config(steps=4, log_every=4), "dataset": dataset}
    return place, train(config, place)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The test set as files in class folders."""
    place = tmp_path_factory.mktemp("pictures")
    images, labels, _ = named("test")
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (place / NAMES[label]).mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / NAMES[label] / f"{number}.png")
    return place


def printed(capsys, *arguments):
    assert evaluate.main(list(map(str, arguments))) == 0
    return capsys.readouterr().out


def test_a_split_and_a_folder_of_the_same_pictures(run, pictures, capsys):
    place, result = run
    out = printed(capsys, place)
    assert f"{place}: residual-8, seed 0, step 4" in out
    assert "10 (test)" in out
    assert f"error: {100 * result['test_error']:.2f} %" in out
    for name in NAMES:
        assert name in out
    again = printed(capsys, place, f"--folder={pictures}")
    start = out.index("error:")
    tail = again[again.index("error:") :]
    assert [line for line in tail.splitlines() if "loss" not in line] == [
        line for line in out[start:].splitlines() if "loss" not in line
    ]
    assert f"{100 * result['clean_train_error']:.2f} %" in printed(
        capsys, place, "--split=train"
    )


def test_pictures_have_their_likeliest_classes_also_from_an_exported_file(
    run, pictures, capsys, tmp_path
):
    files = sorted(pictures.rglob("*.png"))[:2]
    wide = tmp_path / "wide.png"  # of another size: the central square is used
    Image.open(files[0]).resize((12, 12), 0).save(wide)
    net = cnn_jax.load_run(run[0])
    image = np.asarray(Image.open(files[0]))[None, ..., None]
    np.testing.assert_array_equal(net.read(files[:1]), image)
    likely = jax.nn.softmax(net.predict(image)[0])
    best = int(likely.argmax())
    weights = tmp_path / "net.safetensors"
    assert export.main([str(run[0]), str(weights)]) == 0
    assert "bytes" in capsys.readouterr().out
    for place in (run[0], weights):
        out = printed(capsys, place, "--images", files[0], wide)
        assert f"{files[0]}: {NAMES[best]} {100 * likely[best]:.1f} %" in out
        assert f"{wide}: " in out


def test_a_held_out_part_of_the_training_split_is_named(run, monkeypatch, capsys):
    monkeypatch.setattr("cnn_jax.study.held_out", lambda config: "validation")
    assert "10 (validation)" in printed(capsys, run[0])
    assert "40 (train)" in printed(capsys, run[0], "--split=train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}"], "contains no run"),
        (["{tmp}/missing.safetensors"], "the file does not exist"),
        (["{run}", "--split=validation"], "invalid choice: 'validation'"),
        (["{run}", "--folder={tmp}"], "must contain one folder of images"),
        (["{run}", "--folder={tmp}/set"], "unknown class of folder"),
        (["{run}", "--images", "{tmp}/none.png"], "cannot be read: No such file"),
        (["{run}", "--images", "{tmp}/set/dog/no.png"], "cannot identify"),
        (["{run}", "--images", "{tmp}"], "cannot be read: Is a directory"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, capsys, arguments, message):
    if "set" in arguments[-1]:
        (tmp_path / "set" / "dog").mkdir(parents=True)
        (tmp_path / "set" / "dog" / "no.png").write_text("not a picture")
    places = {"tmp": tmp_path, "run": run[0]}
    assert evaluate.main([word.format(**places) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_the_moving_average_of_the_weights_can_be_evaluated_and_exported(
    run, capsys, tmp_path
):
    place, file = tmp_path / "run", tmp_path / "net.safetensors"
    dataset = {"name": f"{__name__}:named"}
    config = {**tiny.config(steps=4, log_every=4), "dataset": dataset}
    result = train({**config, "ema_decay": 0.9}, place)
    told = f"error: {100 * result['ema_test_error']:.2f} %"
    loss = f"loss: {result['ema_test_loss']:.4f}"
    assert loss != f"loss: {result['test_loss']:.4f}"
    out = printed(capsys, place, "--averaged")
    assert told in out
    assert loss in out
    assert loss not in printed(capsys, place)
    assert export.main([str(place), str(file), "--averaged"]) == 0
    assert loss in printed(capsys, file)
    for source, message in (
        (file, "holds one set of weights"),
        (run[0], "has no moving average of its weights"),
    ):
        assert evaluate.main([str(source), "--averaged"]) == 2
        assert message in capsys.readouterr().err


def test_an_export_says_which_names_it_takes(run, tmp_path, capsys):
    assert export.main([str(run[0]), str(tmp_path / "net.onnx")]) == 2
    assert "must end in .safetensors" in capsys.readouterr().err


def test_the_five_likeliest_classes_of_an_image_are_printed(capsys):
    shares = np.array([0.05, 0.4, 0.1, 0.2, 0.15, 0.1])
    net = types.SimpleNamespace(
        read=list,
        predict=lambda images: np.log([shares]) + 100,
        class_names=tuple("abcdef"),
    )
    evaluate.show_pictures(net, ["a.png"])
    told = "a.png: b 40.0 %, d 20.0 %, e 15.0 %, c 10.0 %, f 10.0 %\n"
    assert capsys.readouterr().out == told
