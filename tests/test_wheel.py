"""Contents of an installation: one package, with its version."""

import importlib.metadata
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import cnn_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_the_version_stands_in_one_place():
    assert cnn_jax.__version__ == importlib.metadata.version("cnn_jax")
    holders = [
        path.name
        for path in (ROOT / "setup.cfg", ROOT / "pyproject.toml")
        if cnn_jax.__version__ in path.read_text()
    ]
    assert holders == []


@pytest.mark.slow
def test_a_wheel_holds_the_package_alone(tmp_path):
    """Neither ``experiments`` nor ``configs``, names that other projects also use."""
    source = tmp_path / "source"
    # a copy, because a build leaves files behind and picks up those of an older one
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "runs", "*.so"),
    )
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", str(source), "--quiet"),
            *("--no-deps", "--no-build-isolation", f"--wheel-dir={tmp_path}"),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"cnn_jax-{cnn_jax.__version__}-")
    files = set(zipfile.ZipFile(wheel).namelist())
    tops = {file.partition("/")[0] for file in files}
    assert tops == {"cnn_jax", f"cnn_jax-{cnn_jax.__version__}.dist-info"}
    ours = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "cnn_jax").rglob("*.py")
    }
    assert len(ours) > 50
    assert ours <= files
    assert "cnn_jax/report/page.html.jinja" in files
