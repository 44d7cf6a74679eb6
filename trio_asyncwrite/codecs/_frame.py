"""Where a frame lies in a buffer."""

from __future__ import annotations

from typing import NamedTuple, final


@final
class Frame(NamedTuple):
    """Where a frame lies in a buffer: what :meth:`Codec.locate` answers.

    All three are offsets from the start of the buffer, in bytes:
    ``0 <= begin <= end <= next <= len(buffer)``, and ``next`` is at least 1.
    """

    #: Where the payload begins: behind a header, for example.
    begin: int
    #: Where the payload ends.
    end: int
    #: Where the next frame begins: behind a delimiter, for example.
    next: int
