"""Exceptions that outlive the call which has raised them."""

from __future__ import annotations

from typing import Any, TypeVar

E = TypeVar("E", bound=BaseException)


def without_frames(exc: Exception) -> Exception:
    """A copy of ``exc`` and its causes that refers to no frames, for a report that is kept.

    A traceback keeps alive what the frames refer to: the closed stack. It is a copy because ``exc``
    may be on its way to somebody, who shall see where it comes from.
    """
    twin = _copy(exc)
    one: BaseException = exc
    last: BaseException = twin
    seen = {id(exc)}
    while (cause := one.__cause__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        last.__cause__ = _copy(cause)
        one, last = cause, last.__cause__
    return twin


def _copy(exc: E) -> E:
    """The same exception, never raised. No code of its class is run, except for a group."""
    members: tuple[BaseException, ...] | None = getattr(exc, "exceptions", None)
    if members is not None:
        group: Any = exc
        return group.derive([_copy(one) for one in members])  # type: ignore[no-any-return]
    kind = type(exc)
    built_in: Any = next(one for one in kind.__mro__ if one.__module__ == "builtins")
    args = built_in.__reduce__(exc)[1]
    twin: E = built_in.__new__(kind, *args)
    built_in.__init__(twin, *args)
    twin.__dict__.update(vars(exc))
    return twin
