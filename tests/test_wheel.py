"""Contents of an installation: one package, with its version."""

import importlib.metadata
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import cnn_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
IGNORED = shutil.ignore_patterns(".*", "build", "*.egg-info", "runs", "*.so")


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
        ignore=IGNORED,
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
    assert not [file for file in files if file.endswith((".cc", ".h"))]
    compiled = [file for file in files if file.startswith("cnn_jax/kernels/_onednn.")]
    assert len(compiled) == (1 if can_be_compiled() else 0)


def can_be_compiled() -> bool:
    """Whether everything is installed that the extension is compiled with."""
    installed = {found.name for found in importlib.metadata.distributions()}
    wanted = {"onednn-devel-cpu-gomp", "onednn-cpu-gomp"}
    return wanted <= installed and any(map(shutil.which, ("g++", "c++")))


def test_a_source_distribution_made_elsewhere_has_the_files_to_compile(tmp_path):
    """Where the extension is not built, setuptools does not know of its files."""
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    # neither tests nor results, which take long to look through
    shutil.copytree(ROOT / "cnn_jax", tmp_path / "cnn_jax", ignore=IGNORED)
    code = "import setuptools; setuptools.setup()"
    command = [sys.executable, "-c", code, "--quiet", "sdist", "--dist-dir=made"]
    subprocess.run(command, check=True, cwd=tmp_path)
    [made] = (tmp_path / "made").iterdir()
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folder = ROOT / "cnn_jax" / "kernels"
    needed = {path.name for path in folder.iterdir() if path.suffix in (".cc", ".h")}
    assert len(needed) > 2
    assert {f"cnn_jax/kernels/{name}" for name in needed} <= names
