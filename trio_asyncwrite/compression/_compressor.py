"""What a writer needs of an encoder."""

from __future__ import annotations

from typing import Final, Protocol

#: The answer ``takes_views`` of an encoder whose ``compress`` also takes a view, and keeps none. It
#: saves a copy; only those of this package give it.
TAKES_VIEWS: Final = object()


class Compressor(Protocol):
    """An encoder: three plain functions that know nothing of streams, for :class:`CompressWriter`.

    Any object with these three will do. One object serves one writer. It never sees empty data, and
    :meth:`finish` is its last call. If it raises, the writer is broken.

    With ``offload=True`` the calls come from different threads, one at a time.

    It may also have an integer ``bytes_per_budget_unit``: how many bytes it takes in a microsecond,
    see :attr:`trio_asyncwrite.AsyncWrite.bytes_per_budget_unit`.

    Source: ``async_compression::core::Encode``; :func:`zlib.compressobj`.
    """

    def compress(self, data: bytes, /) -> bytes:
        """Encode ``data``.

        Args:
            data: at most 32 KiB; 256 KiB with ``offload=True``. It may be kept.

        Returns:
            The output that is complete. It may be empty, and the encoder may hold the rest.
        """
        ...

    def flush(self) -> bytes:
        """Give out all that is held, so that the peer can decode everything up to here.

        It is called only if there was data since the last call.

        Returns:
            The rest of the output so far.
        """
        ...

    def finish(self) -> bytes:
        """End the stream. Called at most once, also if there was no data at all.

        Returns:
            The rest of the output, with a trailer by which the peer knows that it has everything.
        """
        ...
