"""Frames: whole messages over a byte stream, each sent or received as one.

Codecs are pure objects that say where a frame begins and ends. Channels send and receive frames.
"""

from __future__ import annotations

from ._codec import Codec as Codec
from ._delimiter import DelimiterCodec as DelimiterCodec
from ._frame import Frame as Frame
from ._framed_reader import FramedReader as FramedReader
from ._framed_writer import FramedWriter as FramedWriter
from ._length_delimited import LengthDelimitedCodec as LengthDelimitedCodec
from ._lines import LinesCodec as LinesCodec

__all__ = (
    "Codec",
    "DelimiterCodec",
    "Frame",
    "FramedReader",
    "FramedWriter",
    "LengthDelimitedCodec",
    "LinesCodec",
)


def _show_public_path() -> None:
    for name in __all__:
        globals()[name].__module__ = __name__


_show_public_path()
