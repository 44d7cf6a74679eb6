"""The writer into memory that the caller can look at."""

from __future__ import annotations

from typing import final

import trio

from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import TRANSPORT_RATE
from trio_asyncwrite._core._checks import byte_view, int_at_least
from trio_asyncwrite._core._errors import Refusal, WriteZeroError


@final
class Cursor(AsyncWrite):
    """Writes into a buffer in memory, at a :attr:`position` that can be set.

    * ``Cursor()`` and ``Cursor(bytearray)`` grow the buffer as they need.
    * ``Cursor(memoryview)`` and ``Cursor(bytearray, growable=False)`` overwrite what is there.
      At the end of the buffer a write is accepted in part, and then raises
      :exc:`WriteZeroError`.

    The buffer is shared with the caller, who may read and change it at any time; a view counts
    as its bytes, whatever its items. A write that raises has changed nothing, and no error is
    sticky: after a :exc:`WriteZeroError`, set :attr:`position` back and go on; after a
    :exc:`BufferError` (a ``bytearray`` cannot grow while somebody holds a view of it), release
    the view.

    Args:
        buffer: the buffer to write into; by default a new, empty ``bytearray``.
        growable: whether writing may make the buffer longer. By default a ``bytearray`` is.

    Raises:
        TypeError: if ``buffer`` is neither a ``bytearray`` nor a writable ``memoryview``.
        BufferError: if ``buffer`` is a view with gaps.
        ValueError: if ``growable`` is asked of a ``memoryview``.

    Source: ``std::io::Cursor`` over ``&mut [u8]``, ``Box<[u8]>`` and ``Vec<u8>``.
    """

    #: What is in memory can be looked at, and set back.
    can_be_torn = False
    announces_held_bytes = True
    bytes_per_budget_unit: int | None = TRANSPORT_RATE

    def __init__(
        self, buffer: bytearray | memoryview | None = None, *, growable: bool | None = None
    ) -> None:
        if buffer is None:
            buffer = bytearray()
        if isinstance(buffer, memoryview):
            if growable:
                raise ValueError("a memoryview cannot grow: use growable=False, or a bytearray")
            buffer = _writable_bytes(buffer)
        elif not isinstance(buffer, bytearray):
            raise TypeError(
                f"expected a bytearray or a writable memoryview, got {type(buffer).__name__}"
            )
        self._buffer = buffer
        self._growable = isinstance(buffer, bytearray) and growable is not False
        self._position = 0

    @property
    def position(self) -> int:
        """Where the next write goes, in bytes from the start of the buffer.

        It may be set beyond the end: the next write to a growable buffer fills the gap with
        zeros.

        Raises:
            TypeError: if it is set to something that is not an integer.
            ValueError: if it is set to less than 0. The position stays.

        Source: ``Cursor::position``, ``Cursor::set_position``.
        """
        return self._position

    @position.setter
    def position(self, position: int) -> None:
        self._position = int_at_least(0, position, "position")

    def getvalue(self) -> bytes:
        """A copy of the whole buffer, wherever the position is, also after closing.

        Source: ``Cursor::get_ref``.
        """
        return bytes(self._buffer)

    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Write at the position and move it on. See :meth:`AsyncWrite.poll_write`.

        Raises:
            WriteZeroError: if a fixed buffer has no room behind the position.
            BufferError: if a buffer that must grow cannot, because there are views of it.
        """
        self.lifecycle.check_write(self)
        with byte_view(data) as view:
            count = self._put(view) if view else 0
        self._position += count
        return count

    def _put(self, view: memoryview) -> int:
        buffer, start, size = self._buffer, self._position, len(view)
        room = len(buffer) - start
        if not self._growable:
            size = min(size, room)
            if size <= 0:
                raise WriteZeroError(
                    f"{self!r} accepted 0 of {len(view)} bytes: there is no room behind the "
                    f"position",
                    permanent=False,
                )
        elif room <= 0 and isinstance(buffer, bytearray):
            # One step for gap and data: if it fails, the buffer is as it was.
            try:
                buffer += bytes(-room) + view if room else view
            except (BufferError, MemoryError) as exc:
                raise self._cannot_grow(exc) from None
            return size
        try:
            buffer[start : start + size] = view[:size]
        except (BufferError, MemoryError) as exc:
            raise self._cannot_grow(exc) from None
        return size

    def _cannot_grow(self, exc: BufferError | MemoryError) -> Refusal:
        kind = _NoMemoryError if isinstance(exc, MemoryError) else _CannotGrowError
        return kind(f"{self!r}: {str(exc) or 'out of memory'}")

    def __repr__(self) -> str:
        return f"<Cursor at {self._position} of {len(self._buffer)} bytes>"


class _CannotGrowError(Refusal, BufferError):
    """A buffer of which there are views cannot grow now; nothing is broken by that."""

    def __reduce__(self) -> tuple[type[BaseException], tuple[object, ...]]:
        return BufferError, self.args


class _NoMemoryError(Refusal, MemoryError):
    """There is no memory for a buffer that must grow; a shorter write may succeed."""

    def __reduce__(self) -> tuple[type[BaseException], tuple[object, ...]]:
        return MemoryError, self.args


def _writable_bytes(view: memoryview) -> memoryview:
    """The bytes of ``view``, itself and not a copy of it."""
    if view.readonly:
        raise TypeError("expected a bytearray or a writable memoryview, got a read-only one")
    if not view.c_contiguous:
        raise BufferError("expected a contiguous memoryview, got one with gaps")
    return view.cast("B")
