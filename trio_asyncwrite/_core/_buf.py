"""The read cursor that remembers how much of a message has been accepted."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, final

from ._checks import byte_view, counted, int_at_least

if TYPE_CHECKING:
    from typing_extensions import Buffer


@final
class Buf:
    """A read cursor over one or several bytes-like parts, without copying.

    ``await writer.write_all_buf(buf)`` moves the cursor past exactly what was accepted, also
    when the call is cancelled or fails: call it again and it goes on where it was. Several
    parts leave in one gathered call.

    The cursor holds its parts until it has passed them (a ``bytearray`` cannot be resized
    until then) and never changes them.

    Args:
        *parts: bytes-like objects, sent one after the other. Empty ones are skipped; a
            contiguous view of another item format counts as its bytes.

    Raises:
        TypeError: if a part is not bytes-like.
        BufferError: if a part is a view with gaps.

    Source: ``bytes::Buf`` of Rust's ``bytes`` crate.
    """

    __slots__ = ("__weakref__", "_parts", "_remaining")

    def __init__(self, *parts: Buffer) -> None:
        self._parts: deque[memoryview] = deque()
        self._remaining = 0
        try:
            for part in parts:
                view = byte_view(part)
                if view:
                    self._parts.append(view)
                    self._remaining += len(view)
                else:
                    view.release()
        except (TypeError, BufferError):
            # The traceback keeps this object alive, and it must not keep the parts.
            self.release()
            raise

    @property
    def remaining(self) -> int:
        """How many bytes are ahead of the cursor."""
        return self._remaining

    def __len__(self) -> int:
        return self._remaining

    def is_contiguous(self) -> bool:
        """Whether :meth:`chunk` is all that is ahead."""
        return len(self._parts) < 2

    def chunk(self) -> memoryview:
        """The bytes ahead that lie in one piece; empty only at the end.

        The view is valid until the next :meth:`advance`.

        Source: ``Buf::chunk``.
        """
        return self._parts[0] if self._parts else memoryview(b"")

    def chunks(self, limit: int | None = None) -> list[memoryview]:
        """The bytes ahead, piece by piece: what :meth:`AsyncWrite.poll_write_vectored` takes.

        The views are valid until the next :meth:`advance`.

        Args:
            limit: how many pieces to return at most; ``None`` for all.

        Source: ``Buf::chunks_vectored``.
        """
        return list(islice(self._parts, limit))

    def advance(self, count: int) -> None:
        """Move the cursor ``count`` bytes ahead, and let go of the parts that it has passed.

        Raises:
            TypeError: if ``count`` is not an integer.
            ValueError: if ``count`` is negative or more than ``remaining``. The cursor stays.

        Source: ``Buf::advance``.
        """
        if type(count) is not int or count < 0:
            count = int_at_least(0, count, "count")
        if count > self._remaining:
            remain = counted(self._remaining, "byte")
            raise ValueError(f"cannot advance by {count}, past the remaining {remain}")
        self._remaining -= count
        while count:
            part = self._parts[0]
            size = len(part)
            if count < size:
                self._parts[0] = part[count:]
                part.release()
                return
            self._parts.popleft().release()
            count -= size

    def release(self) -> None:
        """Let go of all parts; nothing remains. A write that has ended needs none of them."""
        while self._parts:
            self._parts.popleft().release()
        self._remaining = 0

    def __repr__(self) -> str:
        return f"<Buf: {self._remaining} bytes remaining>"
