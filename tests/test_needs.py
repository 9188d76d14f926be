"""A test skips only for the reasons in tests/needs.py."""

import pathlib
import subprocess
import sys

import pytest

from cnn_jax.kernels import extension
from tests import conftest, needs

TESTS = """
import pytest
from tests import needs

needs.THINGS["torch"] = (lambda: True, "")

@needs.needs("torch")
def test_needing(request):
    assert request.node.get_closest_marker("needs")

def test_known():
    needs.THINGS["torch"] = (lambda: False, "")
    needs.skip_without("torch")

def test_unknown():
    pytest.importorskip("no_such_module")

@pytest.mark.skip(reason="today")
def test_marked():
    pass

@pytest.mark.xfail
def test_expected():
    assert False
"""
FILE = "import pytest; pytest.skip('all of it', allow_module_level=True)"


def test_other_reasons_to_skip_fail(tmp_path, capsys, monkeypatch):
    (tmp_path / "test_one.py").write_text(TESTS)
    (tmp_path / "test_two.py").write_text(FILE)
    # the tests above change what is there
    monkeypatch.setitem(needs.THINGS, "torch", needs.THINGS["torch"])
    # without its own capture, which would replace this test's
    command = ["-p", "tests.needs", "-c", "/dev/null", "-s", "-p", "no:cacheprovider"]
    status = pytest.main(
        [*command, "-rs", "--continue-on-collection-errors", str(tmp_path)]
    )
    assert status == 1
    out = capsys.readouterr().out
    assert out.count("is no reason of tests/needs.py to skip") == 3
    for reason in ("'today'", "'all of it'", "could not import 'no_such_module'"):
        assert reason in out
    assert needs.REASONS["torch"] in out
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors" in out


def test_importing_the_set_up_leaves_the_backend_to_the_flags():
    """jax refuses to change the number of devices once the backend has started."""
    code = "import jax, tests.conftest, tests.needs; "
    code += "jax.config.update('jax_num_cpu_devices', 3)"
    root = pathlib.Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert done.returncode == 0


def test_an_extension_that_does_not_load_is_not_skipped(monkeypatch, tmp_path):
    assert conftest.broken_extension() == ""
    monkeypatch.setenv(extension.SWITCH, "true")
    monkeypatch.setattr(extension, "attempt", lambda: (None, "is broken"))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(extension, "compiled_file", lambda: None)
    assert conftest.broken_extension() == ""
    monkeypatch.setattr(extension, "compiled_file", lambda: tmp_path / "_onednn.so")
    assert "_onednn.so is not used" in conftest.broken_extension()
    assert "is broken" in conftest.broken_extension()
    monkeypatch.setenv(extension.SWITCH, "false")
    assert conftest.broken_extension() == ""
