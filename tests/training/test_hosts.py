"""Two hosts with two devices each equal one host with four, or stop together."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training import checkpoint, hosts
from cnn_jax.training import config as run_config
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny
from tests.data.test_streams import STREAM, TRAIN, write_folder

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT = 10  # seconds after which a silent host counts as lost
STEPS = 13


def config(mode="pmap", **placing):
    placing = {"mode": mode, "devices": 4, "bn_group_size": 8, **placing}
    return tiny.config(
        model={"name": "tests.training.host:Normalised"},
        parallel={"host_timeout": TIMEOUT, **placing},
        steps=STEPS,
        batch_size=8,
        eval_batch_size=12,
    )


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """A config that streams 13 training images and 5 test images."""
    folder = write_folder(tmp_path_factory.mktemp("pictures"))
    dataset = {"name": "folder", "data_dir": folder, "stream": STREAM}
    return {**config(), "dataset": dataset}


@contextlib.contextmanager
def started(cache, *jobs, devices=(2, 2), other=None):
    """Run two hosts on the jobs, or the second on other jobs; end them on exit."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.training.host"),
                *(f"{index}/2@127.0.0.1:{port}", json.dumps(work)),
            ],
            cwd=ROOT,
            env={
                **environment,
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={number}",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, (work, number) in enumerate(
            zip((jobs, [other] if other else jobs), devices, strict=True)
        )
    ]
    try:
        yield running
    finally:
        for host in running:
            host.kill()
            host.communicate()


def job(config, directory, seconds=0.0):
    return {"config": config, "directory": str(directory), "seconds": seconds}


def ended(running, timeout=120):
    """Exit statuses and output on stderr."""
    said = [host.communicate(timeout=timeout)[1] for host in running]
    return [host.returncode for host in running], said


def ending(directory, config):
    """Log and final state of a run."""
    program = Program({**config, "parallel": {**config["parallel"], "hosts": "one"}})
    place = RunDirectory(directory)
    state, _, _ = checkpoint.restore(place.checkpoints, program.initial_state(0))
    return place.log(), jax.tree.leaves(state)


def assert_close(directory, config, alone):
    """The run equals that of one host to rounding, with equal counts."""
    fit(Program(config), 0, RunDirectory(alone))
    _, found = ending(directory, config)
    _, wanted = ending(alone, config)
    for leaf, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-5)
    rows, expected = RunDirectory(directory).rows(), RunDirectory(alone).rows()
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3)


def shards(directory):
    """The examples fed to each host, (hosts, steps, rows)."""
    parts = [
        json.loads((directory / f"fed-{index}.json").read_text()) for index in (0, 1)
    ]
    return np.array([part[:STEPS] for part in parts])


def assert_every_epoch_is_the_set(fed, size):
    order = fed.transpose(1, 0, 2).ravel()
    epochs = order[: len(order) // size * size].reshape(-1, size)
    assert len(epochs) > 1
    np.testing.assert_array_equal(
        np.sort(epochs, 1), np.broadcast_to(np.arange(size), epochs.shape)
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


def uninterrupted(root, cache, configs):
    """Train on two hosts; returns the directory of the runs and their configs."""
    jobs = [job(item, root / name / "run") for name, item in configs.items()]
    for name in configs:
        (root / name).mkdir()
    with started(cache, *jobs) as running:
        statuses, said = ended(running)
    assert statuses == [0, 0], said
    return root, configs


@pytest.fixture(scope="module")
def pmapped(tmp_path_factory, cache):
    return uninterrupted(tmp_path_factory.mktemp("hosts"), cache, {"pmap": config()})


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, cache, stream):
    configs = {"shard_map": config("shard_map"), "stream": stream}
    return uninterrupted(tmp_path_factory.mktemp("hosts"), cache, configs)


@pytest.fixture(params=["pmapped", pytest.param("sharded", marks=pytest.mark.slow)])
def reference(request):
    """Uninterrupted runs of two hosts, on arrays in both modes and on a stream."""
    return request.getfixturevalue(request.param)


def test_two_hosts_equal_one(reference, tmp_path):
    root, configs = reference
    for name in configs:
        assert_close(root / name / "run", configs[name], tmp_path / name)
        fed = shards(root / name)
        assert fed.shape == (2, STEPS, 4)
        if name == "stream":
            fed = fed // 10  # an image's colour encodes its index
        assert_every_epoch_is_the_set(fed, TRAIN if name == "stream" else 40)


def test_only_the_first_host_writes(reference):
    root, configs = reference
    made = {path.name for path in (root / min(configs) / "run").iterdir()}
    assert made == {
        "checkpoints",
        "config.json",
        "data.npz",
        "lock",
        "metrics.jsonl",
        "result.json",
        "saved",
    }


@pytest.mark.slow
def test_stopped_killed_and_started_again(pmapped, tmp_path, cache):
    """With pmap; `tests.soak.test_hosts` does the same with shard_map."""
    root, configs = pmapped
    place, whole = RunDirectory(tmp_path / "run"), root / "pmap" / "run"
    assert_goes_on(configs["pmap"], place, whole, cache)


def assert_goes_on(config, place, whole, cache):
    """A signal to one host stops both with a checkpoint; a death also stops both."""
    task = job(config, place.path, seconds=0.3)
    with started(cache, task) as running:
        wait_for_row(place, running, 3)
        running[1].send_signal(signal.SIGTERM)
        statuses, said = ended(running)
    assert statuses == [143, 143], said
    assert "run the same command again to resume" in said[0]
    stopped_at = int(checkpoint.steps(place.checkpoints)[-1].stem.split("_")[1])
    assert 3 < stopped_at < STEPS

    with started(cache, task) as running:
        wait_for_row(place, running, 9)
        running[1].kill()
        killed = time.monotonic()
        statuses, said = ended(running)
    assert time.monotonic() - killed < 2 * TIMEOUT
    assert statuses[0] not in (0, 143)
    assert "lost the connection" in said[0] or "another task died" in said[0]
    assert place.result() is None

    with started(cache, job(config, place.path)) as running:
        statuses, said = ended(running)
    assert statuses == [0, 0], said
    log, state = ending(place.path, config)
    expected_log, expected = ending(whole, config)
    assert log == expected_log
    for leaf, wanted in zip(state, expected, strict=True):
        np.testing.assert_array_equal(leaf, wanted)


def wait_for_row(place, running, step):
    deadline = time.monotonic() + 100
    while not any(row["step"] >= step for row in place.rows()):
        assert all(host.poll() is None for host in running), "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_host_that_nobody_meets_says_so_in_a_line(tmp_path, cache):
    with started(cache, job(config(host_timeout=2), tmp_path / "run")) as (
        first,
        second,
    ):
        first.kill()
        status, said = second.wait(60), second.stderr.read()
    assert status == 2
    assert said.startswith("error: parallel.hosts: ")
    assert "not all hosts connected within 2 s" in said
    assert said.count("\n") == 1


def test_a_host_of_a_cluster_that_nobody_meets_gives_up(monkeypatch, capfd):
    left, statuses = threading.Event(), []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: left.wait(20))
    monkeypatch.setattr(os, "_exit", lambda code: statuses.append(code) or left.set())
    hosts.join("cluster", timeout=1)
    assert statuses == [2]
    said = capfd.readouterr().err
    assert "parallel.hosts cluster: not all hosts connected within 1 s" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2/2@node1:1234", "index must be below the count"),
        ("0/0@node1:1234", "index must be below the count"),
        ("0/99999999999999999999@node1:1234", "INDEX/COUNT@ADDRESS:PORT"),
        ("0/99999@node1:1234", "at most 65536 hosts"),
        ("0/2@node1:99999", "port must be in 1..65535"),
        ("0/2@node1:0", "port must be in 1..65535"),
        ("0/\u0662@node1:1234", "INDEX/COUNT@ADDRESS:PORT"),
        ("0/2", "INDEX/COUNT@ADDRESS:PORT"),
        ("slurm", "'one', 'cluster'"),
    ],
)
def test_hosts_that_cannot_be_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        run_config.check(tiny.config(parallel={"hosts": text}))


def test_a_timeout_must_be_positive():
    with pytest.raises(ConfigError, match=r"host_timeout must be positive .*got 0"):
        run_config.check(tiny.config(parallel={"host_timeout": 0}))


def test_a_command_that_has_not_joined_says_so():
    with pytest.raises(ConfigError, match="this command supports one host"):
        Program(tiny.config(parallel={"hosts": "0/2@node1:1234"}))


def test_alone_a_host_is_the_first_and_tells_itself():
    assert (hosts.index(), hosts.count(), hosts.is_first()) == (0, 1, True)
    assert hosts.from_first(lambda: {"a": 1}) == {"a": 1}
    with pytest.raises(OSError, match="full"):
        hosts.from_first(lambda: (_ for _ in ()).throw(OSError("full")))
