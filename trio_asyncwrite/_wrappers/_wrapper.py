"""The base of writers over one writer: passes on what a wrapper need not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import rate_of
from trio_asyncwrite._core._checks import check_buffers
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._file_part import check_part
from trio_asyncwrite._core._stack import poll_below

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_asyncwrite._core._file_part import FilePart

W = TypeVar("W", bound=AsyncWrite)


class Wrapper(AsyncWrite, Generic[W]):
    """A writer over ``inner``: its capacity, gathered writes, files and end are those of that."""

    announces_held_bytes = True

    #: The writer below.
    inner: W

    @property
    def spare_capacity(self) -> int:  # type: ignore[override]
        """The capacity of the writer below: what it takes at once is taken here at once."""
        inner = self.lifecycle.inner
        return 0 if inner is None else inner.spare_capacity  # type: ignore[attr-defined]

    @property
    def bytes_per_budget_unit(self) -> int:  # type: ignore[override]
        """As the layer below: nothing is done to the bytes here."""
        return rate_of(self.inner)

    @answer
    def epilogue(self) -> Epilogue:
        """Nothing: it passes on what it was given."""
        return Epilogue.NOTHING

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Pass the buffers on, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        self.lifecycle.check_write(self)
        check_buffers(buffers)
        return poll_below(self.inner, self.inner.poll_write_vectored, buffers)

    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Pass the file on. See :meth:`AsyncWrite.poll_write_file`."""
        self.lifecycle.check_write(self)
        check_part(part, limit)
        return poll_below(self.inner, self.inner.poll_write_file, part, limit)
