"""What the WebSocket recipe says of cancelled messages is true, and exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio_websocket

from trio_asyncwrite import ReadWritePair, SharedWriter, TlsStream, duplex

from ._tls_helpers import HOST, client_context, server_context

if TYPE_CHECKING:
    from trio.testing import MockClock

#: How long a text is whose frame is 64 KiB long: a client's has a header of eight bytes.
LONGEST = 65536 - 8


def shared(tls: TlsStream[Any]) -> Any:
    return ReadWritePair(tls, SharedWriter(tls))


def bare(tls: TlsStream[Any]) -> Any:
    return tls


@pytest.mark.parametrize(
    ("make", "length", "is_whole"),
    [
        (shared, LONGEST, True),
        (shared, LONGEST + 1, True),
        (shared, 1_000_000, True),
        (bare, LONGEST, True),
        (bare, LONGEST + 1, False),
        (bare, 1_000_000, False),
    ],
)
@pytest.mark.filterwarnings("ignore:.*bytes that it had accepted were never sent")
async def test_a_message_that_is_cancelled_in_the_middle(
    make: Any, length: int, *, is_whole: bool, autojump_clock: MockClock
) -> None:
    received: list[int] = []

    async def serve(tls: TlsStream[Any]) -> None:
        async with trio.open_nursery() as nursery, tls:
            request = await trio_websocket.wrap_server_stream(nursery, tls, message_queue_size=0)
            socket = await request.accept()
            await trio.sleep(2)
            with pytest.raises(trio_websocket.ConnectionClosed):
                while True:
                    received.append(len(await socket.get_message()))

    left, right = duplex(4096)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, TlsStream(right, server_context(), server_side=True))
        stream = make(TlsStream(left, client_context(), server_hostname=HOST))
        async with trio.open_nursery() as clients, stream:
            socket = await trio_websocket.wrap_client_stream(clients, stream, HOST, "/")
            await socket.send_message("first")
            with trio.move_on_after(1) as scope:
                await socket.send_message("x" * length)
            assert scope.cancelled_caught
            if is_whole:
                with trio.move_on_after(0.5) as scope:
                    await socket.send_message("withdrawn")
                assert scope.cancelled_caught
                await socket.send_message("last")
                await socket.aclose()
            else:
                with pytest.raises(trio_websocket.ConnectionClosed):
                    await socket.send_message("last")

    assert received == ([5, length, 4] if is_whole else [5])
