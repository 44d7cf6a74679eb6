"""The parts of one gathered write, as views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_asyncwrite._core._checks import accepted
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._stack import fail, is_refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_asyncwrite._core._async_write import AsyncWrite


def front(views: Sequence[memoryview], count: int) -> list[memoryview]:
    """The first ``count`` bytes of ``views``, without copying.

    Args:
        views: flat views.
        count: how many bytes; at most as many as there are.
    """
    parts: list[memoryview] = []
    for view in views:
        if not count:
            break
        parts.append(view[:count])
        count -= len(parts[-1])
    return parts


def back(views: Sequence[memoryview], count: int) -> list[memoryview]:
    """What follows the first ``count`` bytes of ``views``, without copying.

    Args:
        views: flat views.
        count: how many bytes to leave out; at most as many as there are.
    """
    parts: list[memoryview] = []
    for view in views:
        if count < len(view):
            parts.append(view[count:])
        count = max(count - len(view), 0)
    return parts


def release(views: Sequence[memoryview]) -> None:
    """Let go of views, so that no traceback keeps the caller's buffer."""
    for view in views:
        view.release()


def poll_parts(writer: AsyncWrite, views: Sequence[memoryview]) -> int:
    """Write the front of ``views``; the answer is checked."""
    return accepted(writer.poll_write_vectored(views), sum(map(len, views)), writer)


def offer(writer: AsyncWrite, views: Sequence[bytes | memoryview]) -> int:
    """Write the front of ``views``, some of which are the caller's own store.

    Raises:
        NotReady: and errors that break nothing, without a traceback: it would hold the frames of
            the writers below, and they may hold views, with which the store could not grow.
    """
    try:
        if len(views) == 1:
            size = len(views[0])
            count = writer.poll_write(views[0])
        else:
            size = sum(map(len, views))
            count = writer.poll_write_vectored(views)
        return count if count == size and type(count) is int else accepted(count, size, writer)
    except BaseException as exc:
        fail(writer, exc)
        if isinstance(exc, NotReady) or is_refusal(exc):
            exc.__context__ = None
            raise exc.with_traceback(None)  # noqa: ASYNC104, B904 - it is the same one
        raise
