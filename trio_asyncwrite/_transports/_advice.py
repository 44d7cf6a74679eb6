"""Which constructor takes an object that another one has refused."""

from __future__ import annotations

import os
from typing import Any, Final

import trio
import trio.abc

from trio_asyncwrite._core._checks import connection_advice

from ._std_file import check_file

#: A text file in Trio's file; mock objects have no end.
_MAX_DEPTH: Final = 2


def advice(thing: object) -> str:
    """The end of an error message: the expression to use for ``thing``, which it calls "it"."""
    if isinstance(thing, (str, os.PathLike)):
        return ', which is a path: use AllowStdIo(open(it, "wb"))'
    connection = connection_advice(thing)
    if connection:
        return connection
    expression = _writer_of(thing, "it")
    return f": use {expression}" if expression else ""


def _writer_of(thing: Any, name: str) -> str:
    """The expression that makes a writer of ``thing``, or "" if none does."""
    if isinstance(thing, trio.abc.SendStream):
        return f"wrap_stream({name})"
    if isinstance(thing, trio.abc.ReceiveStream):
        return f"ReadWritePair({name}, writer)"
    try:
        check_file(thing)
    except (TypeError, ValueError):
        return _writer_of_inner(thing, name)
    return f"AllowStdIo({name})"


def _writer_of_inner(thing: object, name: str) -> str:
    """The same for the file below a text file, or below one of Trio's or anyio's."""
    if name.count(".") == _MAX_DEPTH:
        return ""
    for attribute in ("wrapped", "buffer", "stream"):
        inner = getattr(thing, attribute, None)
        expression = "" if inner is None else _writer_of(inner, f"{name}.{attribute}")
        if expression:
            return expression
    return ""
