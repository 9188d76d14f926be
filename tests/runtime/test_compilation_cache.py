"""The next command finds compiled programs, which never change a result."""

import os
import pathlib
import subprocess
import sys
import types
import zlib

import jax
import pytest

from cnn_jax.runtime import compilation_cache
from tests.experiments.test_commands import SHORT

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The least net with convolutions, batch norm and a shortcut.
LEAST = (
    *(flag for flag in SHORT if "model" not in flag),
    *("--config.model.depth=4", "--config.model.stage_sizes=(1,)"),
    "--config.model.widths=(2,)",
)
# A command, then the numbers of cache hits and misses.
COMMAND = """
import sys, jax
from experiments import train
seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
status = train.main(sys.argv[1:])
for found in ("hits", "misses"):
    status = f"{status} {seen.count(f'/jax/compilation_cache/cache_{found}')}"
print(status)
"""


def run(path, home, **variables):
    """A short run in a separate process: hits, misses, log and last checkpoint."""
    ours = ("JAX_COMPILATION", "JAX_PERSISTENT", "JAX_ENABLE_COMPILATION")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(ours)
    }
    environment |= {"XDG_CACHE_HOME": str(home), "PYTHONPATH": str(ROOT), **variables}
    arguments = [*LEAST, f"--workdir={path}"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )
    status, hits, misses = done.stdout.splitlines()[-1].split()
    assert (status, done.stderr) == ("0", "")
    log = (path / "metrics.jsonl").read_bytes()
    (last,) = (path / "checkpoints").glob("*.ckpt")
    _, _, state = last.read_bytes().split(b"\n", 2)  # the time precedes it
    return int(hits), int(misses), (log, state)


def entries(home):
    return {path: path.read_bytes() for path in home.rglob("*-cache")}


@pytest.mark.slow
def test_a_second_command_compiles_nothing_and_computes_the_same(tmp_path):
    home = tmp_path / "home"
    again, compiled, expected = run(tmp_path / "cold", home)
    kept = entries(home)
    assert compiled == len(kept) > 10
    hits, misses, found = run(tmp_path / "warm", home)
    assert (hits, misses) == (again + compiled, 0)
    assert found == expected

    # killed while writing, a full disk, a bad sector
    damages = (
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
    )
    for number, (path, content) in enumerate(kept.items()):
        path.write_bytes(damages[number % 3](content))
    hits, misses, found = run(tmp_path / "damaged", home)
    assert (hits, misses) == (again, compiled)
    assert found == expected
    assert entries(home).keys() == kept.keys()
    for content in entries(home).values():
        assert zlib.decompress(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        pytest.param(
            {"XDG_CACHE_HOME": "/dev/null"},  # not a directory
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_command_without_the_cache(tmp_path, variables):
    home = tmp_path / "home"
    hits, misses, _ = run(tmp_path / "run", home, **variables)
    assert (hits, misses) == (0, 0)
    assert entries(tmp_path) == {}


def test_where_programs_are_kept(monkeypatch, tmp_path):
    """Where the user's variables point; one directory per number of cores."""
    home, cores = tmp_path / "home", "cnn_jax.runtime.backend.cores"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(cores, lambda: [0, 1, 2])
    three = compilation_cache.place({})
    assert three.parent == home / ".cache" / "cnn_jax" / "xla"
    assert compilation_cache.place({"XDG_CACHE_HOME": "relative"}) == three
    xdg = compilation_cache.place({"XDG_CACHE_HOME": str(tmp_path)})
    assert xdg == tmp_path / "cnn_jax" / "xla" / three.name
    monkeypatch.setattr(cores, lambda: [0])
    assert compilation_cache.place({}) != three
    monkeypatch.setattr(cores, lambda: [0, 1, 2])
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert compilation_cache.place({}) != three


def test_the_users_own_directory_is_left_alone(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    asked = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "XDG_CACHE_HOME": "/nowhere"}
    assert compilation_cache.enable(asked) is None
    assert jax.config.jax_compilation_cache_dir == before


def test_damaged_entries_go_whichever_library_compressed_them(monkeypatch, tmp_path):
    whole = zlib.compress(bytes(100))
    for mark in (b"", compilation_cache.ZSTANDARD):
        (tmp_path / f"{len(mark)}whole-cache").write_bytes(mark + whole)
        (tmp_path / f"{len(mark)}half-cache").write_bytes(mark + whole[:-5])

    class ZstdDecompressor:
        decompress = staticmethod(lambda content: zlib.decompress(content[4:]))

    package = types.SimpleNamespace(ZstdDecompressor=ZstdDecompressor)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    for library, left in (
        (None, {"0whole", "4whole", "4half"}),
        (package, {"0whole", "4whole"}),
    ):
        monkeypatch.setitem(sys.modules, "zstandard", library)
        (tmp_path / "swept").unlink(missing_ok=True)
        compilation_cache.sweep(tmp_path)
        found = {path.name.removesuffix("-cache") for path in tmp_path.glob("*-cache")}
        assert found == left


def test_the_oldest_entries_go_first(tmp_path):
    for number in range(4):
        path = tmp_path / f"{number}-cache"
        path.write_bytes(zlib.compress(bytes(100)))
        os.utime(path, (number, number))
    size = path.stat().st_size
    compilation_cache.sweep(tmp_path, limit=2 * size)
    assert {path.name for path in tmp_path.glob("*-cache")} == {"2-cache", "3-cache"}
