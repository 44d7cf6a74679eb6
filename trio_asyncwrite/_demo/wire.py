"""The messages, and the receiving side's own judgement of them.

A message is a kind, the length of its payload, and the payload. A file travels as one FILE
(its name), RECORDs (its content) and one DIGEST (SHA-256 of name and content); END says how
many files and bytes of content there were. So the receiver can tell from the stream alone
whether it is whole.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from typing import Final, Protocol

from .source import RECORD_SIZE

HEADER: Final = "!BI"
END_PAYLOAD: Final = "!QQ"

_HEADER_SIZE: Final = struct.calcsize(HEADER)


class Kind(enum.IntEnum):
    """What a message is."""

    FILE = 1
    RECORD = 2
    DIGEST = 3
    END = 4


class _Digest(Protocol):
    """What hashlib's objects can do; the module exports no type for them."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class Parser:
    """Takes the stream apart again and verifies it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._digest: _Digest | None = None
        self._content = 0
        self._ended = False
        #: How many messages have arrived in step.
        self.messages = 0
        #: How many files have arrived with the right SHA-256.
        self.files = 0
        #: Why the stream makes no sense any more, if so. Nothing can be told of what follows.
        self.lost_step: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all arrived that END said, and nothing else."""
        return self._ended and not self._buffer and self.lost_step is None

    def feed(self, data: bytes | bytearray) -> None:
        """Take in what has been received."""
        if self.lost_step is not None:
            return
        self._buffer += data
        try:
            while self._take_message():
                self.messages += 1
        except _LostStepError as exc:
            self.lost_step = str(exc)
            self._buffer.clear()

    def _take_message(self) -> bool:
        if len(self._buffer) < _HEADER_SIZE:
            return False
        kind, size = struct.unpack_from(HEADER, self._buffer)
        if size > RECORD_SIZE:
            raise _LostStepError(f"a message of {size:,} bytes")
        end = _HEADER_SIZE + size
        if len(self._buffer) < end:
            return False
        payload = bytes(self._buffer[_HEADER_SIZE:end])
        del self._buffer[:end]
        self._handle(kind, payload)
        return True

    def _handle(self, kind: int, payload: bytes) -> None:
        digest = self._digest
        if self._ended:
            raise _LostStepError("a message after the end")
        if kind == Kind.FILE and digest is None:
            self._digest = hashlib.sha256(payload)
        elif kind == Kind.RECORD and digest is not None:
            digest.update(payload)
            self._content += len(payload)
        elif kind == Kind.DIGEST and digest is not None:
            if payload != digest.digest():
                raise _LostStepError("a file with the wrong SHA-256")
            self.files += 1
            self._digest = None
        elif kind == Kind.END and digest is None:
            if payload != struct.pack(END_PAYLOAD, self.files, self._content):
                raise _LostStepError("an end that counts other files or bytes")
            self._ended = True
        else:
            raise _LostStepError(f"a message of kind {kind} out of place")


class _LostStepError(Exception):
    """What arrived is no message that could stand there."""
