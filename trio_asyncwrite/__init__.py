"""Tokio's AsyncWrite for Trio: writers that survive cancellation.

Where things are, from the ground up. Folders are layers: each imports only from those before it.
The table in tests/test_layers.py is the map, and holds them to it. Start reading at
``_core/_async_write.py``.
"""

from __future__ import annotations

from ._closing._close import (
    abort as abort,
    close_all_gracefully as close_all_gracefully,
    close_gracefully as close_gracefully,
    graceful as graceful,
)
from ._closing._report import CloseOutcome as CloseOutcome, CloseReport as CloseReport
from ._core._async_read import AsyncRead as AsyncRead
from ._core._async_write import (
    AsyncReadWrite as AsyncReadWrite,
    AsyncWrite as AsyncWrite,
    ByRef as ByRef,
)
from ._core._buf import Buf as Buf
from ._core._epilogue import Epilogue as Epilogue
from ._core._errors import NotReady as NotReady, WriteZeroError as WriteZeroError
from ._core._file_part import FilePart as FilePart, SupportsFileno as SupportsFileno
from ._core._layer import Layer as Layer
from ._relay._copy import copy as copy
from ._relay._lane import Lane as Lane, LaneOutcome as LaneOutcome
from ._relay._relay import Relay as Relay, copy_bidirectional as copy_bidirectional
from ._serving._drain import Drain as Drain, DrainReport as DrainReport
from ._serving._serve import (
    serve_listeners as serve_listeners,
    serve_tcp as serve_tcp,
    serve_tls_over_tcp as serve_tls_over_tcp,
)
from ._tls._over_tcp import (
    TlsListener as TlsListener,
    open_tls_over_tcp_listeners as open_tls_over_tcp_listeners,
    open_tls_over_tcp_stream as open_tls_over_tcp_stream,
)
from ._tls._start_tls import start_tls as start_tls
from ._tls._stream import TlsStream as TlsStream
from ._transports._allow_stdio import AllowStdIo as AllowStdIo
from ._transports._cursor import Cursor as Cursor
from ._transports._duplex import (
    DuplexStream as DuplexStream,
    SimplexReader as SimplexReader,
    SimplexWriter as SimplexWriter,
    duplex as duplex,
    simplex as simplex,
)
from ._transports._poll_evented import HasFileno as HasFileno, PollEvented as PollEvented
from ._transports._sink import Sink as Sink
from ._transports._std_file import BinaryFile as BinaryFile
from ._transports._stdout import stderr as stderr, stdout as stdout
from ._transports._tcp import (
    TcpStream as TcpStream,
    open_tcp_stream as open_tcp_stream,
    open_unix_stream as open_unix_stream,
)
from ._transports._tcp_listener import (
    TcpListener as TcpListener,
    open_tcp_listeners as open_tcp_listeners,
)
from ._transports._wrap_stream import wrap_stream as wrap_stream
from ._wrappers._buf_reader import BufReader as BufReader
from ._wrappers._buf_writer import BufWriter as BufWriter
from ._wrappers._inspect_writer import InspectWriter as InspectWriter
from ._wrappers._line_writer import LineWriter as LineWriter
from ._wrappers._metered_writer import MeteredWriter as MeteredWriter
from ._wrappers._read_write_pair import ReadWritePair as ReadWritePair
from ._wrappers._shared_writer import SharedWriter as SharedWriter
from ._wrappers._split import ReadHalf as ReadHalf, WriteHalf as WriteHalf, split as split
from ._wrappers._tee_writer import TeeWriter as TeeWriter
from ._wrappers._throttled_writer import ThrottledWriter as ThrottledWriter
from ._wrappers._timeout_writer import TimeoutWriter as TimeoutWriter
from ._wrappers._token_bucket import TokenBucket as TokenBucket
from ._wrappers._write_from_thread import write_from_thread as write_from_thread

__all__ = (
    "AllowStdIo",
    "AsyncRead",
    "AsyncReadWrite",
    "AsyncWrite",
    "BinaryFile",
    "Buf",
    "BufReader",
    "BufWriter",
    "ByRef",
    "CloseOutcome",
    "CloseReport",
    "Cursor",
    "Drain",
    "DrainReport",
    "DuplexStream",
    "Epilogue",
    "FilePart",
    "HasFileno",
    "InspectWriter",
    "Lane",
    "LaneOutcome",
    "Layer",
    "LineWriter",
    "MeteredWriter",
    "NotReady",
    "PollEvented",
    "ReadHalf",
    "ReadWritePair",
    "Relay",
    "SharedWriter",
    "SimplexReader",
    "SimplexWriter",
    "Sink",
    "SupportsFileno",
    "TcpListener",
    "TcpStream",
    "TeeWriter",
    "ThrottledWriter",
    "TimeoutWriter",
    "TlsListener",
    "TlsStream",
    "TokenBucket",
    "WriteHalf",
    "WriteZeroError",
    "abort",
    "close_all_gracefully",
    "close_gracefully",
    "copy",
    "copy_bidirectional",
    "duplex",
    "graceful",
    "open_tcp_listeners",
    "open_tcp_stream",
    "open_tls_over_tcp_listeners",
    "open_tls_over_tcp_stream",
    "open_unix_stream",
    "serve_listeners",
    "serve_tcp",
    "serve_tls_over_tcp",
    "simplex",
    "split",
    "start_tls",
    "stderr",
    "stdout",
    "wrap_stream",
    "write_from_thread",
)


# Tracebacks and documentation show the names where users find them.
def _show_public_path() -> None:
    for name in __all__:
        globals()[name].__module__ = __name__


_show_public_path()
