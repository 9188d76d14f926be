"""Requirements of some tests beyond the extra ``test``: the only reasons to skip.

This is also a pytest plugin: a test that skips for any other reason fails. It is thus
known which tests a new user's run skips.
"""

import importlib.util
import os
import pathlib
import platform
import shutil
from collections.abc import Callable, Iterator

import jaxlib
import pytest

from cnn_jax import kernels
from cnn_jax.runtime import backend

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SLURM = ("slurmctld", "slurmd", "munged", "mungekey", "sbatch", "srun")
ROOT = os.geteuid() == 0

# For each requirement: whether it is met, asked only when a test needs it because some
# answers start jax's backend; and how to meet it.
THINGS: dict[str, tuple[Callable[[], bool], str]] = {
    "torch": (
        lambda: importlib.util.find_spec("torch") is not None,
        "pip install -e '.[test,peer]'",
    ),
    "a browser": (
        lambda: any(map(shutil.which, BROWSERS)),
        "apt-get install chromium",
    ),
    "root": (lambda: ROOT, "sudo .venv/bin/python -m pytest"),
    "slurm": (
        lambda: ROOT and all(map(shutil.which, SLURM)),
        "apt-get install slurm-wlm munge, and root",
    ),
    "a faulty jaxlib": (
        lambda: jaxlib.__version__ in backend.AFFECTED,
        f"pip install jax=={backend.AFFECTED[-1]}",
    ),
    "oneDNN": (
        lambda: kernels.library() == "onednn",
        "apt-get install g++ && pip install -e '.[test]'",
    ),
    "bfloat16": (
        lambda: "avx512_bf16" in processor_flags(),
        "a processor with avx512_bf16 in /proc/cpuinfo",
    ),
    "two cores": (
        lambda: len(backend.cores()) > 1,
        "taskset -c 0,1 python -m pytest",
    ),
    "glibc": (
        lambda: platform.libc_ver()[0] == "glibc",
        "docker run -it python:3.11",
    ),
}
REASONS = {thing: f"needs {thing}: {how}" for thing, (_, how) in THINGS.items()}


def processor_flags() -> set[str]:
    """The instruction sets of this processor by Linux's names; elsewhere none."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    lines = [line for line in text.splitlines() if line.startswith("flags")]
    return set(lines[0].split()) if lines else set()


def met(thing: str) -> bool:
    """Whether a requirement is met."""
    return THINGS[thing][0]()


def needs(thing: str) -> pytest.MarkDecorator:
    """A mark that skips a test without that requirement."""
    return pytest.mark.skipif(not met(thing), reason=REASONS[thing])


def skip_without(thing: str) -> None:
    """Skip a test or a whole file, called from inside it."""
    if not met(thing):
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
