"""The log of what goes wrong."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncWrite, duplex, log_errors
from trio_asyncwrite._serving._log_errors import peer_of

from .._servers import Server
from .._streams import drain as read_all, tcp_pair
from .._tls_helpers import server_context

if TYPE_CHECKING:
    from collections.abc import Callable


class At(AsyncWrite):
    def __init__(self, address: Any) -> None:
        self.peer_address = address


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("192.0.2.1", 80), "192.0.2.1:80"),
        (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80"),
        ("/run/socket", "/run/socket"),
        ("", "an unnamed peer"),
        (None, "an unnamed peer"),
        ((3, 1234, 1), "(3, 1234, 1)"),
        (b"\0abc", "b'\\x00abc'"),
        (7, "7"),
    ],
)
def test_an_address_in_words(address: object, text: str) -> None:
    assert peer_of(At(address)) == text


async def test_of_the_streams_of_others_the_socket_is_asked() -> None:
    left, right = await tcp_pair()
    stream = trio.SSLStream(trio.SocketStream(left.socket), server_context(), server_side=True)
    assert peer_of(stream) == "{}:{}".format(*left.peer_address)
    assert peer_of(duplex(1)[0]) == peer_of(trio.testing.memory_stream_pair()[0])
    left.socket.close()
    right.socket.close()


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: raised(trio.BrokenResourceError(), OSError("reset")),
            "BrokenResourceError: reset",
        ),
        (lambda: trio.TooSlowError("idle"), "TooSlowError: idle"),
        (trio.ClosedResourceError, "ClosedResourceError"),
    ],
)
def test_what_a_client_can_cause_is_one_line(
    make: Callable[[], Exception], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "trio_asyncwrite"):
        log_errors(make(), At(("192.0.2.1", 80)))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("trio_asyncwrite", "INFO")
    assert record.getMessage() == f"connection from 192.0.2.1:80: {line}"
    assert record.exc_info is None


async def test_a_mistake_is_an_error_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: AsyncWrite) -> None:
        raise ZeroDivisionError

    server = Server(tls=False)
    async with trio.open_nursery() as nursery:
        await server.run(handler, nursery, on_error=log_errors)
        client = await server.connect()
        with pytest.raises(trio.BrokenResourceError):
            await read_all(client)
        server.drain.start()
    (record,) = caplog.records
    host, port = client.local_address
    assert record.levelname == "ERROR"
    assert record.getMessage() == f"connection from {host}:{port}: the handler failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    await trio.aclose_forcefully(client)
