"""The writer that swallows everything."""

from __future__ import annotations

from typing import final

from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import TRANSPORT_RATE
from trio_asyncwrite._core._checks import byte_view


@final
class Sink(AsyncWrite):
    """Accepts everything at once and keeps nothing.

    Source: ``tokio::io::sink`` and ``Sink``.
    """

    can_be_torn = False
    announces_held_bytes = True
    bytes_per_budget_unit: int | None = TRANSPORT_RATE

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Accept all of ``data``. See :meth:`AsyncWrite.poll_write`."""
        self.lifecycle.check_write(self)
        if type(data) is bytes:
            return len(data)
        with byte_view(data) as view:
            return len(view)

    def __repr__(self) -> str:
        return "<Sink>"
