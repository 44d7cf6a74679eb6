"""A server's callbacks: checked before the first connection, and called.

A protection from Ctrl-C covers what is called from protected lines, too; but a callback that never
awaits must be interruptible. So each is called from a function that lifts the protection.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

S = TypeVar("S")


def check_handler(handler: object) -> None:
    """Refuse a handler that cannot be right.

    A plain function may return a coroutine, and a lambda or a decorator's wrapper often is one. So
    only a plain function that can return nothing but None is refused; of any other, its first call
    tells.

    Raises:
        TypeError: says what was given, and what to give instead.
    """
    if isinstance(handler, Coroutine):
        handler.close()  # or Python warns that it was never awaited
        name: object = getattr(cast("object", handler), "__name__", "handler")
        raise TypeError(
            f"expected an async function as handler, got a coroutine object: give {name}, "
            f"and not {name}(...); the server calls it for each connection"
        )
    if not callable(handler):
        raise TypeError(f"expected an async function as handler, got {type(handler).__name__}")
    function = _function_of(handler)
    if inspect.isasyncgenfunction(function) or _is_generator(function):
        raise TypeError(
            f"expected an async function as handler, got {_named(handler)}, a generator"
        )
    if inspect.isfunction(function) and _returns_only_none(function):
        raise TypeError(
            f"expected an async function as handler, got {_named(handler)}, a plain one: "
            f"write async def"
        )
    try:
        signature = inspect.signature(handler)
    except ValueError:
        return  # a built-in one: its first call tells
    try:
        signature.bind(None)
    except TypeError as exc:
        raise TypeError(
            f"expected a handler that takes the stream as its one argument, got "
            f"{_named(handler)}: {exc}"
        ) from None


def _function_of(handler: Any) -> object:
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isroutine(handler) or isinstance(handler, type):
        return getattr(handler, "__func__", handler)
    return getattr(handler.__call__, "__func__", None)


def _is_generator(function: Any) -> bool:
    """Whether a function makes a generator that types.coroutine() has not made awaitable."""
    return inspect.isgeneratorfunction(function) and not (
        function.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE
    )


def _returns_only_none(function: Any) -> bool:
    """Whether a function is plain, returns, and never anything but None."""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        return False
    returns: list[bool] = []
    value: Any = None
    for instruction in dis.get_instructions(function):
        is_const = instruction.opname == "RETURN_CONST"  # from Python 3.12 on
        if is_const or instruction.opname == "RETURN_VALUE":
            # After a jump, it is another value.
            value = instruction if is_const else None if instruction.is_jump_target else value
            returns.append(
                value is not None
                and value.opname in ("LOAD_CONST", "RETURN_CONST")
                and value.argval is None
            )
        value = instruction
    return bool(returns) and all(returns)


def _named(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", None) or repr(thing))


@trio.lowlevel.disable_ki_protection
async def call_handler(handler: Callable[[S], Awaitable[object]], stream: S) -> None:
    """Let a handler serve a connection.

    Raises:
        TypeError: if it returns nothing that can be awaited.
    """
    result: object = handler(stream)
    if not isinstance(result, Awaitable):
        raise TypeError(
            f"the handler {_named(handler)} must be an async function; it returned {result!r}, "
            f"which cannot be awaited"
        )
    await result


def check_on_error(on_error: object) -> None:
    """Refuse an ``on_error`` that is neither None nor a plain function.

    Raises:
        TypeError: says what was given.
    """
    if on_error is not None:
        if not callable(on_error):
            raise TypeError(
                f"on_error must be a function of (exception, stream), or None, got "
                f"{type(on_error).__name__}"
            )
        if inspect.iscoroutinefunction(_function_of(on_error)):
            raise TypeError(
                f"on_error must be a plain function, got {_named(on_error)}, an async one: it is "
                f"called and not awaited"
            )


@trio.lowlevel.disable_ki_protection
def call_on_error(on_error: Callable[[Exception, S], object], exc: Exception, stream: S) -> None:
    """Tell ``on_error`` of what a handler has raised.

    Raises:
        TypeError: if it returns something to be awaited.
    """
    result = on_error(exc, stream)
    if isinstance(result, Awaitable):
        if isinstance(result, Coroutine):
            result.close()  # or Python warns that it was never awaited
        raise TypeError(
            f"on_error must be a plain function, and {_named(on_error)} returned something to be "
            f"awaited: it is called and not awaited"
        )


def split_exception(exc: BaseException) -> tuple[Exception | None, BaseException | None]:
    """What of ``exc`` concerns one connection, and the rest: Cancelled, Ctrl-C, SystemExit."""
    if isinstance(exc, Exception):
        return exc, None
    # Python 3.10 has no name for an exception group.
    split: Any = getattr(exc, "split", None)
    if split is None:
        return None, exc
    parts: tuple[Exception | None, BaseException | None] = split(Exception)
    return parts
