"""zlib, and the modules that replace it."""

from __future__ import annotations

from typing import Any, Final, Protocol, final

from trio_asyncwrite._core._checks import integer

from ._compressor import TAKES_VIEWS


class ZlibModule(Protocol):
    """A module with zlib's ``compressobj``: ``zlib``, ``isal.isal_zlib``, ``zlib_ng.zlib_ng``."""

    @property
    def Z_SYNC_FLUSH(self) -> int:  # noqa: N802 - zlib's name
        """The mode of a flush that ends a block, and not the stream."""
        ...

    @property
    def compressobj(self) -> Any:
        """Make an encoder, as :func:`zlib.compressobj` does."""
        ...


#: The window that zlib has by default, as compressobj() wants it.
ZLIB_WINDOW: Final = 15

#: The same, with the header and trailer of gzip around it.
GZIP_WINDOW: Final = 16 + ZLIB_WINDOW

#: zlib's highest level, for a module that does not tell its own.
_BEST: Final = 9

#: How many microseconds of encoding cost one unit of :ref:`the budget <budget>`, which is one
#: elsewhere. zlib takes 0.8 ms for a piece, and other tasks wait for as long in any case; with a
#: checkpoint for every 0.1 ms, a fast encoder would spend a third of its time in them.
MICROSECONDS_PER_UNIT: Final = 6

# Bytes in a microsecond, at the default level: measured with JSON in pieces of 32 KiB.
_RATES: Final = {"zlib": 40, "zlib_ng.zlib_ng": 60, "isal.isal_zlib": 360}


@final
class Deflate:
    """An encoder of one of these modules.

    Args:
        module: the module.
        level: what its ``compressobj`` takes; None for its default.
        window: what its ``compressobj`` takes as ``wbits``.

    Raises:
        TypeError: if ``module`` is not such a module, or ``level`` is not an integer.
        ValueError: if the module does not know the level.
    """

    takes_views = TAKES_VIEWS

    def __init__(self, module: ZlibModule, level: int | None, window: int) -> None:
        name = getattr(module, "__name__", type(module).__name__)
        if not hasattr(module, "compressobj") or not hasattr(module, "Z_SYNC_FLUSH"):
            raise TypeError(
                f"zlib must be a module with compressobj(), such as zlib, isal.isal_zlib or "
                f"zlib_ng.zlib_ng, got {name}"
            )
        if level is None:
            encoder = module.compressobj(wbits=window)
        else:
            level = integer(level, "level")
            try:
                encoder = module.compressobj(level, wbits=window)
            except (ValueError, OverflowError):
                best = getattr(module, "Z_BEST_COMPRESSION", _BEST)
                raise ValueError(
                    f"{name} has no level {level}: use one from 0 to {best}, or None"
                ) from None
        #: Without a function of ours in between.
        self.compress = encoder.compress
        #: It ends the stream by default.
        self.finish = encoder.flush
        self._sync = module.Z_SYNC_FLUSH
        self.bytes_per_budget_unit = MICROSECONDS_PER_UNIT * _RATES.get(name, _RATES["zlib"])

    def flush(self) -> bytes:
        """End a block."""
        output: bytes = self.finish(self._sync)
        return output
