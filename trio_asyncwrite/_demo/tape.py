"""What should arrive, byte by byte: finds the first one that is wrong."""

from __future__ import annotations


class Tape:
    """Records what is meant to be sent, once; compares what arrives with it.

    It holds no more than what is on its way, and nothing after the first wrong byte.
    """

    def __init__(self) -> None:
        self._ahead = bytearray()
        #: How many bytes should arrive, up to now.
        self.expected = 0
        #: How many did.
        self.received = 0
        #: Where the first byte stands that is not what it should be.
        self.wrong_at: int | None = None

    def expect(self, data: bytes) -> None:
        """Say what is to arrive next."""
        self.expected += len(data)
        if self.wrong_at is None:
            self._ahead += data

    def compare(self, data: bytes | bytearray) -> None:
        """Say what has arrived next."""
        if self.wrong_at is None:
            expected = self._ahead[: len(data)]
            if expected == data:
                del self._ahead[: len(data)]
            else:
                pairs = enumerate(zip(expected, data, strict=False))
                self._spoil(next((at for at, (a, b) in pairs if a != b), len(expected)))
        self.received += len(data)

    def end(self) -> None:
        """Say that nothing more will arrive."""
        if self._ahead:
            self._spoil(0)

    def _spoil(self, right: int) -> None:
        self.wrong_at = self.received + right
        self._ahead.clear()
