"""A socket's methods for somebody else's descriptor."""

from __future__ import annotations

import gc
import os
import resource
import socket as stdlib_socket
from typing import TYPE_CHECKING

import pytest

from trio_asyncwrite._transports._borrowed_socket import BorrowedSocket

from .._interrupts import interrupt_everywhere

if TYPE_CHECKING:
    from collections.abc import Iterator

    Pair = tuple[stdlib_socket.socket, stdlib_socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = stdlib_socket.socketpair()
    with left, right:
        yield left, right
        os.fstat(left.fileno())  # whatever a test has done, it is open


def test_it_works_on_the_same_socket(pair: Pair) -> None:
    left, right = pair
    BorrowedSocket(left.fileno()).shutdown(stdlib_socket.SHUT_WR)

    assert right.recv(1) == b""


def test_a_kernel_that_is_not_asked_cannot_refuse(pair: Pair) -> None:
    left, right = pair
    sock = BorrowedSocket(left.fileno(), is_asked=False)

    assert sock.family != left.family
    right.send(b"x")
    assert sock.recv(1) == b"x"
    sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_KEEPALIVE, 1)
    assert sock.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_KEEPALIVE) == 1
    sock.shutdown(stdlib_socket.SHUT_WR)
    assert right.recv(1) == b""


def test_dropping_it_leaves_the_descriptor_open(pair: Pair) -> None:
    left, right = pair
    BorrowedSocket(left.fileno())

    left.send(b"x")
    assert right.recv(1) == b"x"


def test_the_garbage_collector_leaves_the_descriptor_open(pair: Pair) -> None:
    left, right = pair
    cycle: list[object] = [BorrowedSocket(left.fileno())]
    cycle.append(cycle)
    del cycle
    gc.collect()

    left.send(b"x")
    assert right.recv(1) == b"x"


def test_ctrl_c_leaves_the_descriptor_open(pair: Pair) -> None:
    left, _ = pair

    def use() -> None:
        os.fstat(left.fileno())
        BorrowedSocket(left.fileno()).getpeername()

    assert interrupt_everywhere(use) > 5


def test_it_needs_no_descriptor_more(pair: Pair) -> None:
    """A program that has none left can still end its connections."""
    left, _ = pair
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError):
            os.dup(left.fileno())
        BorrowedSocket(left.fileno()).shutdown(stdlib_socket.SHUT_WR)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("is_asked", [False, True])
def test_other_numbers_are_refused(*, is_asked: bool) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="socket"):
            BorrowedSocket(writing, is_asked=is_asked)
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(OSError, match="descriptor"):
        BorrowedSocket(writing, is_asked=is_asked)
    with pytest.raises(ValueError, match="negative"):
        BorrowedSocket(-1, is_asked=is_asked)
