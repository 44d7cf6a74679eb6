"""Our API in a program that still has trio-typing installed. Checked, never run.

Its ``trio-stubs`` take the place of Trio's own types, here and in what is seen of our package.
Nothing of ours may turn into Any by that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio.abc
import trio_typing
from typing_extensions import assert_type

import trio_asyncwrite as aw


async def serve(
    stream: trio.abc.HalfCloseableStream,
    *,
    task_status: trio_typing.TaskStatus[aw.AsyncWrite] = trio.TASK_STATUS_IGNORED,
) -> None:
    writer = aw.BufWriter(aw.wrap_stream(stream))
    assert_type(writer, aw.BufWriter[aw.AsyncWrite])
    task_status.started(writer)
    await writer.write_all_buf(aw.Buf(b"hello"))
    assert_type(await writer.write(b"hello"), int)
    assert_type(writer.unsent_bytes, int)
    await writer.aclose()


async def connect(nursery: trio_typing.Nursery) -> None:
    stream = await aw.open_tcp_stream("localhost", 80)
    assert_type(stream, aw.TcpStream)
    writer = aw.BufWriter(stream)
    assert_type(writer, aw.BufWriter[aw.TcpStream])
    assert_type(writer.inner, aw.TcpStream)

    trio_stream: trio.abc.HalfCloseableStream = stream
    nursery.start_soon(serve, trio_stream)
    nursery.start_soon(writer.send_all, b"data")


def polls(writer: aw.AsyncWrite) -> None:
    try:
        assert_type(writer.poll_write(b""), int)
    except aw.NotReady as not_ready:
        assert_type(not_ready.wait, Callable[[], Awaitable[object]])
