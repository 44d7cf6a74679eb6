"""For people who write their own writers: a checker, a cancellation sweep, and test doubles.

Nothing here imports pytest.
"""

from __future__ import annotations

from ._cancel import Sweep as Sweep, cancel_everywhere as cancel_everywhere
from ._check import check_async_write as check_async_write
from ._scripted import ScriptedWriter as ScriptedWriter
from ._zoo import (
    BrokenAfterWriter as BrokenAfterWriter,
    NeverReadyTwiceWriter as NeverReadyTwiceWriter,
    OneByteWriter as OneByteWriter,
    ReadyAfterFlushWriter as ReadyAfterFlushWriter,
)

__all__ = (
    "BrokenAfterWriter",
    "NeverReadyTwiceWriter",
    "OneByteWriter",
    "ReadyAfterFlushWriter",
    "ScriptedWriter",
    "Sweep",
    "cancel_everywhere",
    "check_async_write",
)


def _show_public_path() -> None:
    for name in __all__:
        globals()[name].__module__ = __name__


_show_public_path()
