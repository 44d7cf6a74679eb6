"""Handlers and ``on_error`` functions that cannot be right."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    log_errors,
    open_tcp_stream,
    serve_listeners,
    serve_tcp,
    serve_tls_over_tcp,
)
from trio_asyncwrite._serving._callbacks import check_handler

from .._servers import Server
from .._streams import drain as read_all
from .._tls_helpers import server_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


async def good(stream: AsyncReadWrite) -> None:
    await stream.send_all(b"hello")


class Object:
    async def __call__(self, stream: AsyncReadWrite) -> None:
        await good(stream)

    async def method(self, stream: AsyncReadWrite) -> None:
        await good(stream)

    @staticmethod
    async def static(stream: AsyncReadWrite) -> None:
        await good(stream)

    @classmethod
    async def of_class(cls, stream: AsyncReadWrite) -> None:
        await good(stream)


async def with_more(more: int, stream: AsyncReadWrite, *, much: int = 0) -> None:
    await good(stream)


def forwards(stream: AsyncReadWrite) -> Awaitable[None]:
    return good(stream)


def forwards_or_not(stream: AsyncReadWrite | None) -> Awaitable[None] | None:
    return None if stream is None else good(stream)


class Awaited:
    def __init__(self, stream: AsyncReadWrite) -> None:
        self.stream = stream

    def __await__(self) -> Any:
        return good(self.stream).__await__()


@pytest.mark.parametrize(
    "handler",
    [
        good,
        Object(),
        Object().method,
        Object.static,
        Object.of_class,
        functools.partial(with_more, 1, much=2),
        functools.partial(functools.partial(with_more), 1),
        functools.partial(Object()),
        lambda stream: good(stream),  # noqa: PLW0108
        forwards,
        forwards_or_not,
        Awaited,
    ],
)
async def test_all_that_give_something_to_await_are_handlers(handler: Any) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            functools.partial(serve_tcp, handler, 0, host="127.0.0.1")
        )
        async with await open_tcp_stream(*listener.socket.getsockname()) as stream:
            assert await read_all(stream) == b"hello"
        nursery.cancel_scope.cancel()


def plain(stream: AsyncReadWrite) -> None:
    pass


def plain_with_returns(stream: AsyncReadWrite) -> None:
    if stream:
        return
    for _ in range(2):
        if stream:
            return
    plain(stream)


def generator(stream: AsyncReadWrite) -> Any:
    yield None


async def async_generator(stream: AsyncReadWrite) -> AsyncGenerator[None, None]:
    yield


class Plain:
    def __call__(self, stream: AsyncReadWrite) -> None:
        pass

    def method(self, stream: AsyncReadWrite) -> None:
        pass


async def takes_nothing() -> None: ...


async def takes_more(stream: AsyncReadWrite, more: int) -> None: ...


async def no_stream(*, stream: AsyncReadWrite) -> None: ...


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: plain, "got plain, a plain one: write async def"),
    (lambda: plain_with_returns, "got plain_with_returns, a plain one"),
    (lambda: functools.partial(plain), "plain one"),
    (Plain, "a plain one"),
    (lambda: Plain().method, r"got Plain\.method, a plain one"),
    (lambda: generator, "got generator, a generator"),
    (lambda: async_generator, "got async_generator, a generator"),
    (lambda: good(None), r"got a coroutine object: give good, and not good\(\.\.\.\)"),  # type: ignore[arg-type]
    (lambda: None, "got NoneType"),
    (lambda: "handler", "got str"),
    (lambda: takes_nothing, "takes the stream as its one argument, got takes_nothing: too many"),
    (lambda: takes_more, "got takes_more: missing a required argument: 'more'"),
    (lambda: functools.partial(good, 1), "too many positional arguments"),
    (lambda: no_stream, "got no_stream: "),
]


@pytest.mark.parametrize("serve", ["TCP", "TLS", "listeners"])
@pytest.mark.parametrize(("make", "text"), BAD)
async def test_others_are_refused_before_anything_is_opened(
    make: Callable[[], Any], text: str, serve: str
) -> None:
    with pytest.raises(TypeError, match=text):
        if serve == "TCP":
            await serve_tcp(make(), -1)
        elif serve == "TLS":
            await serve_tls_over_tcp(make(), -1, server_context())
        else:
            await serve_listeners(make(), [])


def test_of_a_built_in_function_nothing_is_known() -> None:
    check_handler(min)


def raises(stream: AsyncReadWrite) -> None:
    raise NotImplementedError


@types.coroutine
def old_style(stream: AsyncReadWrite) -> Any:
    yield from good(stream).__await__()


def test_of_a_function_that_never_returns_or_awaits_in_the_old_style_its_call_tells() -> None:
    check_handler(raises)
    check_handler(old_style)


@pytest.mark.parametrize("answer", [None, 3, [b"hello"]])
async def test_a_handler_that_returns_nothing_to_await_fails_for_its_connection(
    answer: object,
) -> None:
    told: list[Exception] = []
    server = Server(tls=False)
    async with trio.open_nursery() as nursery:
        await server.run(
            lambda stream: answer, nursery, on_error=lambda exc, stream: told.append(exc)
        )
        async with await server.connect() as stream:
            with pytest.raises(trio.BrokenResourceError):
                await read_all(stream)
        server.drain.start()
    (error,) = told
    assert isinstance(error, TypeError)
    assert f"must be an async function; it returned {answer!r}" in str(error)
    assert server.report.failed_handlers == 1


async def async_on_error(exc: Exception, stream: object) -> None: ...


@pytest.mark.parametrize(
    ("on_error", "text"),
    [
        (async_on_error, "must be a plain function, got async_on_error, an async one"),
        (functools.partial(async_on_error), "must be a plain function"),
        (7, r"must be a function of \(exception, stream\), or None, got int"),
    ],
)
async def test_an_on_error_that_is_no_plain_function_is_refused(on_error: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        await serve_tcp(good, -1, on_error=on_error)


@pytest.mark.parametrize("max_connections", [0, -1, "1", 1.5])
async def test_a_number_of_connections_is_at_least_1(max_connections: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_connections must be an integer of at"):
        await serve_tcp(good, -1, max_connections=max_connections)


@pytest.mark.parametrize("handshake_timeout", [-1, "1", float("nan")])
async def test_a_handshake_timeout_is_a_number(handshake_timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="handshake_timeout must be a number"):
        await serve_tls_over_tcp(good, -1, server_context(), handshake_timeout=handshake_timeout)


async def test_a_drain_is_a_drain() -> None:
    with pytest.raises(TypeError, match="drain must be a Drain or None, got bool"):
        await serve_tcp(good, -1, drain=True, on_error=log_errors)  # type: ignore[call-overload]
