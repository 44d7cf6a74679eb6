"""What a layer writes at its end."""

from __future__ import annotations

import enum
from typing import final


@final
class Epilogue(enum.Enum):
    """What a layer writes at its proper end, before the layer below ends."""

    #: Nothing: the end of the layer below is its end.
    NOTHING = "nothing"
    #: Data, such as a compressor's trailer. A peer that does not get it has not got everything.
    DATA = "data"
    #: TLS's close_notify: it says that nothing is missing, and carries no data.
    CLOSE_NOTIFY = "close_notify"
    #: The close of a foreign stream or file writes it, just before the end.
    WITH_CLOSE = "with its close"
