"""O_NONBLOCK is on while a stream needs it, and as it was before afterwards."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import pty
import socket as stdlib_socket
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import PollEvented
from trio_asyncwrite._transports._blocking_mode import NonBlockingMode, _shared_files

from .._interrupts import interrupt_everywhere
from .._streams import clog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def terminal(stack: contextlib.ExitStack) -> int:
    master, slave = pty.openpty()
    stack.callback(os.close, master)
    stack.callback(os.close, slave)
    return slave


def pipe(stack: contextlib.ExitStack) -> int:
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    stack.callback(os.close, writing)
    return writing


def unix_socket(stack: contextlib.ExitStack) -> int:
    left, right = stdlib_socket.socketpair()
    stack.enter_context(left)
    stack.enter_context(right)
    return left.fileno()


def tcp_socket(stack: contextlib.ExitStack) -> int:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
        left = stack.enter_context(stdlib_socket.create_connection(listener.getsockname()))
        stack.enter_context(listener.accept()[0])
    return left.fileno()


KINDS = pytest.mark.parametrize("kind", [terminal, pipe, unix_socket, tcp_socket])
Kind = Any


@KINDS
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("close", [False, True])
async def test_the_last_stream_over_an_open_file_restores_its_mode(
    stack: contextlib.ExitStack, kind: Kind, order: tuple[int, ...], *, close: bool
) -> None:
    """In whatever order they are closed; until then no poll blocks the run."""
    fd = kind(stack)
    streams = [PollEvented(os.dup(fd) if close else fd, close=close) for _ in order]
    for number in order:
        assert not os.get_blocking(fd)
        await trio.aclose_forcefully(streams[number])

    assert os.get_blocking(fd)


@pytest.mark.parametrize("kind", [terminal, pipe])  # a socket is shut down for all descriptors
async def test_the_stream_that_stays_does_not_block(
    stack: contextlib.ExitStack, kind: Kind
) -> None:
    fd = kind(stack)
    first, second = PollEvented(os.dup(fd)), PollEvented(os.dup(fd))
    await trio.aclose_forcefully(first)

    assert clog(second) > 0  # which would not return, with nobody reading
    assert not os.get_blocking(fd)
    await trio.aclose_forcefully(second)
    assert os.get_blocking(fd)


@KINDS
async def test_a_mode_that_was_not_ours_stays(stack: contextlib.ExitStack, kind: Kind) -> None:
    fd = kind(stack)
    os.set_blocking(fd, False)
    first, second = PollEvented(fd, close=False), PollEvented(os.dup(fd))
    await trio.aclose_forcefully(first)
    await trio.aclose_forcefully(second)

    assert not os.get_blocking(fd)


@pytest.mark.parametrize("order", ["reading end first", "writing end first"])
async def test_the_ends_of_a_pipe_have_modes_of_their_own(
    stack: contextlib.ExitStack, order: str
) -> None:
    """One was switched by its owner; both are the same file, for different access."""
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    stack.callback(os.close, writing)
    os.set_blocking(reading, False)
    streams = [PollEvented(writing, close=False), PollEvented(reading, close=False)]
    for stream in streams if order == "writing end first" else streams[::-1]:
        await trio.aclose_forcefully(stream)

    assert os.get_blocking(writing)
    assert not os.get_blocking(reading)


async def test_a_terminal_opened_twice_is_two_open_files(stack: contextlib.ExitStack) -> None:
    first = terminal(stack)
    second = os.open(os.ttyname(first), os.O_RDWR | os.O_NOCTTY)
    stack.callback(os.close, second)
    streams = [PollEvented(fd, close=False) for fd in (first, second)]

    await trio.aclose_forcefully(streams[0])
    assert os.get_blocking(first)
    assert not os.get_blocking(second)
    await trio.aclose_forcefully(streams[1])
    assert os.get_blocking(second)


async def test_a_stream_that_may_share_the_file_keeps_the_mode(
    stack: contextlib.ExitStack,
) -> None:
    """Of two open files, nobody knows whose duplicate it is."""
    first = terminal(stack)
    second = os.open(os.ttyname(first), os.O_RDWR | os.O_NOCTTY)
    stack.callback(os.close, second)
    streams = [PollEvented(fd, close=False) for fd in (first, second)]
    for each in (first, second):
        duplicate = PollEvented(os.dup(each))
        await trio.aclose_forcefully(duplicate)
    duplicate = PollEvented(os.dup(second))
    for stream in streams:
        await trio.aclose_forcefully(stream)
        assert not os.get_blocking(second)

    await trio.aclose_forcefully(duplicate)
    assert os.get_blocking(second)


class Owner:
    """Closes its descriptor when it is dropped, as files do."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        os.close(self.fd)

    __del__ = close


@KINDS
@pytest.mark.parametrize("in_a_cycle", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda fd: PollEvented(os.dup(fd)),
        lambda fd: PollEvented(fd, close=False),
        lambda fd: PollEvented(Owner(os.dup(fd))),
    ],
    ids=["number", "lent number", "object"],
)
@pytest.mark.filterwarnings("ignore:unclosed <PollEvented:ResourceWarning")
async def test_garbage_restores_the_mode(
    stack: contextlib.ExitStack,
    kind: Kind,
    make: Callable[[int], PollEvented],
    *,
    in_a_cycle: bool,
) -> None:
    fd = kind(stack)
    streams: list[Any] = [make(fd), make(fd)]
    if in_a_cycle:
        streams.append(streams)
    # In a cycle the collector may finalise an object first, and that closes its descriptor.
    kept = [each._fd for each in streams[:2]]
    del streams
    gc.collect()

    assert os.get_blocking(fd)
    assert not _shared_files
    del kept


async def test_the_new_owner_of_a_number_keeps_its_mode(stack: contextlib.ExitStack) -> None:
    """Closed behind our back, and reused at once."""
    number = os.dup(pipe(stack))
    other = pipe(stack)
    os.set_blocking(other, False)
    stream = PollEvented(number, close=False)
    os.dup2(other, number)
    await trio.aclose_forcefully(stream)

    assert not os.get_blocking(number)
    os.close(number)


async def test_a_descriptor_closed_behind_our_back(stack: contextlib.ExitStack) -> None:
    number = os.dup(pipe(stack))
    mode = NonBlockingMode(number)
    os.close(number)
    mode.restore()
    mode.restore()

    assert not _shared_files


def test_ctrl_c_leaves_the_descriptor_open(stack: contextlib.ExitStack) -> None:
    fd = pipe(stack)

    def use() -> None:
        NonBlockingMode(fd).restore()

    assert interrupt_everywhere(use) > 5
    os.fstat(fd)


def test_many_streams_leave_nothing_behind(stack: contextlib.ExitStack) -> None:
    fds = [pipe(stack) for _ in range(10)]
    modes = [NonBlockingMode(fd) for fd in fds]
    assert len(_shared_files) == 10
    for mode in modes:
        mode.restore()
    del mode, modes

    assert not _shared_files
