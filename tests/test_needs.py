"""A test skips only for the reasons in tests/needs.py."""

import pytest

from tests import needs

TESTS = """
import pytest
from tests import needs

needs.THINGS["torch"] = (True, "")

@needs.needs("torch")
def test_needing(request):
    assert request.node.get_closest_marker("needs")

def test_known():
    needs.THINGS["torch"] = (False, "")
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
