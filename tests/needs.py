"""Requirements of some tests beyond the extra ``test``: the only reasons to skip.

This is also a pytest plugin: a test that skips for any other reason fails. It is thus
known which tests a new user's run skips.
"""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator

import jaxlib
import pytest

from cnn_jax import kernels
from cnn_jax.runtime import backend

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SLURM = ("slurmctld", "slurmd", "munged", "mungekey", "sbatch", "srun")
ROOT = os.geteuid() == 0

# Whether each requirement is met, and how to install it.
THINGS = {
    "torch": (
        importlib.util.find_spec("torch") is not None,
        "pip install -e '.[test,peer]'",
    ),
    "a browser": (any(map(shutil.which, BROWSERS)), "apt-get install chromium"),
    "root": (ROOT, "sudo .venv/bin/python -m pytest"),
    "slurm": (
        ROOT and all(map(shutil.which, SLURM)),
        "apt-get install slurm-wlm munge, and root",
    ),
    "a faulty jaxlib": (
        jaxlib.__version__ in backend.AFFECTED,
        f"pip install jax=={backend.AFFECTED[-1]}",
    ),
    "oneDNN": (
        kernels.library() == "onednn",
        "apt-get install g++ && pip install -e '.[test]'",
    ),
    "two cores": (len(backend.cores()) > 1, "taskset -c 0,1 python -m pytest"),
    "glibc": (platform.libc_ver()[0] == "glibc", "docker run -it python:3.11"),
}
REASONS = {thing: f"needs {thing}: {how}" for thing, (_, how) in THINGS.items()}


def needs(thing: str) -> pytest.MarkDecorator:
    """A mark that skips a test without that requirement."""
    return pytest.mark.skipif(not THINGS[thing][0], reason=REASONS[thing])


def skip_without(thing: str) -> None:
    """Skip a test or a whole file, called from inside it."""
    if not THINGS[thing][0]:
        pytest.skip(REASONS[thing], allow_module_level=True)


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, which `needs` sets."""
    line = "needs: something that the extra `test` does not bring (tests/needs.py)"
    config.addinivalue_line("markers", line)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need something: ``-m needs`` runs them where it is."""
    for item in items:
        reasons = (mark.kwargs.get("reason") for mark in item.iter_markers("skipif"))
        if set(reasons) & set(REASONS.values()):
            item.add_marker("needs")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Fail a test that skips for any other reason."""
    return _checked((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """Fail a file that skips for any other reason."""
    return _checked((yield))


def _checked(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in REASONS.values():
            report.outcome = "failed"
            report.longrepr = f"{reason!r} is no reason of tests/needs.py to skip"
    return report
