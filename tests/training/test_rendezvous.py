"""Hosts meet before JAX starts: all of them, and each of them once."""

import concurrent.futures
import socket

import pytest

from cnn_jax.names import ConfigError
from cnn_jax.training.rendezvous import meet


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def outcomes(*hosts, timeout=10, port=0):
    """The error of each process, (index, count), or '' if all met."""
    address = f"127.0.0.1:{port or free_port()}"

    def one(host):
        try:
            meet(*host, address, timeout)
        except ConfigError as error:
            return str(error)
        return ""

    with concurrent.futures.ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(one, hosts))


def test_all_meet_in_any_order():
    assert outcomes((2, 3), (1, 3), (0, 3)) == ["", "", ""]
    assert outcomes((0, 1)) == [""]


def test_an_index_given_twice_is_told_to_all():
    said = outcomes((1, 3), (1, 3), (0, 3))
    assert said == ["parallel.hosts: two processes have the index 1"] * 3


def test_index_0_given_twice():
    taken, alone = sorted(outcomes((0, 2), (0, 2), timeout=0.5))
    assert "check that only one process has index 0" in taken
    assert "not all hosts connected within 0.5 s" in alone
    assert "missing: [1]" in alone


def test_hosts_that_count_differently():
    said = outcomes((0, 3), (1, 2))
    assert said == ["parallel.hosts: host 0 expects 3 hosts, but host 1 expects 2"] * 2


def test_strangers_and_hosts_that_died_do_not_count():
    port = free_port()

    def disturb():
        for content in (b"GET / HTTP/1.1\r\n\r\n", b"1/3"):
            while True:
                try:
                    line = socket.create_connection(("127.0.0.1", port), 5)
                except ConnectionRefusedError:
                    continue
                break
            with line:
                line.sendall(content)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(outcomes, (0, 3), port=port)
        pool.submit(disturb).result()
        assert outcomes((1, 3), (2, 3), port=port) == ["", ""]
        assert first.result() == [""]


@pytest.mark.parametrize("name", ["127.0.0.1", "no.such.host.invalid", "a" * 300])
def test_nobody_answers(name):
    with pytest.raises(ConfigError, match=r"not all hosts connected within 0\.3 s"):
        meet(1, 2, f"{name}:{free_port()}", 0.3)
