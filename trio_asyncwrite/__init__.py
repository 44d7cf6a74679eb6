"""Tokio's AsyncWrite for Trio: writers that survive cancellation.

Where things are, from the ground up; each layer imports only from those before it, and
tests/test_layers.py holds them to it:

    _errors, _phase, _util, _buf, _budget     words and small parts
    _abc                                      the trait: three polls and the await shell. Start here
    _fd, _tcp, _poll_evented, _send_stream,
    _allow_stdio, _cursor, _sink, _duplex     transports: where bytes leave the process
    _wrap                                     any stream as a writer
    _buf_writer, _read_write_pair, _split,
    _shared_writer, _timeout_writer,
    _tls_engine, _tls, _tls_over_tcp          layers over any writer
    _outq, _close_report, _close_engine,
    _close                                    endings that lose nothing
    _serve                                    servers that end like that
    testing                                   for people who write their own writers
    _demo, __main__                           the main job: python -m trio_asyncwrite demo
"""

from __future__ import annotations

from ._abc import AsyncReadWrite as AsyncReadWrite, AsyncWrite as AsyncWrite, ByRef as ByRef
from ._allow_stdio import AllowStdIo as AllowStdIo, BinaryFile as BinaryFile
from ._buf import Buf as Buf
from ._buf_writer import BufWriter as BufWriter
from ._close import (
    abort as abort,
    close_all_gracefully as close_all_gracefully,
    close_gracefully as close_gracefully,
    graceful as graceful,
)
from ._close_report import CloseOutcome as CloseOutcome, CloseReport as CloseReport
from ._cursor import Cursor as Cursor
from ._duplex import (
    DuplexStream as DuplexStream,
    SimplexReader as SimplexReader,
    SimplexWriter as SimplexWriter,
    duplex as duplex,
    simplex as simplex,
)
from ._errors import NotReady as NotReady, WriteZeroError as WriteZeroError
from ._poll_evented import HasFileno as HasFileno, PollEvented as PollEvented
from ._read_write_pair import ReadWritePair as ReadWritePair
from ._serve import (
    Drain as Drain,
    DrainReport as DrainReport,
    serve_listeners as serve_listeners,
    serve_tcp as serve_tcp,
    serve_tls_over_tcp as serve_tls_over_tcp,
)
from ._shared_writer import SharedWriter as SharedWriter
from ._sink import Sink as Sink
from ._split import ReadHalf as ReadHalf, WriteHalf as WriteHalf, split as split
from ._tcp import (
    TcpListener as TcpListener,
    TcpStream as TcpStream,
    open_tcp_listeners as open_tcp_listeners,
    open_tcp_stream as open_tcp_stream,
    open_unix_stream as open_unix_stream,
)
from ._timeout_writer import TimeoutWriter as TimeoutWriter
from ._tls import TlsStream as TlsStream, start_tls as start_tls
from ._tls_over_tcp import (
    TlsListener as TlsListener,
    open_tls_over_tcp_listeners as open_tls_over_tcp_listeners,
    open_tls_over_tcp_stream as open_tls_over_tcp_stream,
)
from ._wrap import wrap_stream as wrap_stream

__all__ = (
    "AllowStdIo",
    "AsyncReadWrite",
    "AsyncWrite",
    "BinaryFile",
    "Buf",
    "BufWriter",
    "ByRef",
    "CloseOutcome",
    "CloseReport",
    "Cursor",
    "Drain",
    "DrainReport",
    "DuplexStream",
    "HasFileno",
    "NotReady",
    "PollEvented",
    "ReadHalf",
    "ReadWritePair",
    "SharedWriter",
    "SimplexReader",
    "SimplexWriter",
    "Sink",
    "TcpListener",
    "TcpStream",
    "TimeoutWriter",
    "TlsListener",
    "TlsStream",
    "WriteHalf",
    "WriteZeroError",
    "abort",
    "close_all_gracefully",
    "close_gracefully",
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
    "wrap_stream",
)


# Tracebacks and documentation show the names where users find them.
def _show_public_path() -> None:
    for name in __all__:
        globals()[name].__module__ = __name__


_show_public_path()
