"""Checks of frames, and of what codecs of users answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from trio_asyncwrite._core._checks import byte_view, describe_answer

if TYPE_CHECKING:
    from typing_extensions import Buffer


def frame_view(frame: Buffer) -> memoryview:
    """A flat view of a frame.

    Raises:
        TypeError: if it is not bytes-like.
        BufferError: if it is a view with gaps.
    """
    if isinstance(frame, str):
        raise TypeError("expected a frame, which is bytes-like, got str: encode it first")
    if isinstance(frame, (list, tuple)):
        name = type(frame).__name__
        raise TypeError(f"expected one frame, which is bytes-like, got {name}: send each by itself")
    return byte_view(frame)


def check_codec(codec: object, method: str) -> None:
    """Refuse what has no such method.

    Raises:
        TypeError: if ``codec`` has no such method, or is a class.
    """
    if isinstance(codec, type):
        raise TypeError(f"expected a codec, got the class {codec.__name__}: give an instance of it")
    if isinstance(codec, str) or not callable(getattr(codec, method, None)):
        name = type(codec).__name__
        raise TypeError(f"expected a codec with {method}(), got {name}: see Codec")


def wrong_parts(codec: object, parts: object) -> NoReturn:
    """Raise for a codec whose ``encode`` has answered nonsense."""
    raise TypeError(
        f"{type(codec).__name__}.encode() must return a sequence of bytes-like objects, together "
        f"at least one byte, it returned {describe_answer(parts)[:100]}"
    )


def wrong_frame(codec: object, method: str, found: object, size: int) -> NoReturn:
    """Raise for a codec whose ``locate`` has answered nonsense about ``size`` bytes."""
    name = f"{type(codec).__name__}.{method}()"
    kinds = "a Frame, or the number of bytes to fetch"
    if type(found) is int:
        raise RuntimeError(
            f"{name} must return {kinds}: {found} is not more than the {size} in the buffer"
        )
    if isinstance(found, tuple):
        raise RuntimeError(  # noqa: TRY004 - its type is right
            f"{name} must return {kinds}: {found!r} does not lie in the {size} bytes of the buffer"
        )
    raise TypeError(f"{name} must return {kinds}, it returned {describe_answer(found)[:100]}")
