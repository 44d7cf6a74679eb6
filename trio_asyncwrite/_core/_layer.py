"""What writers and readers have in common: a place in a stack, and an end."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, Final, NoReturn

import trio
import trio.abc

from ._answer import answer
from ._close import Hardness, close_layer
from ._epilogue import Epilogue
from ._lifecycle import Lifecycle
from ._stack import (
    attach,
    below,
    held_by,
    held_for_some,
    is_closed,
    set_inner,
    unsent_below,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self


class _Inner:
    """``layer.inner``: the layer below. Setting it makes the layer known to that one."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.__doc__ = "The layer below."

    def __get__(self, layer: Layer | None, owner: type | None = None) -> Any:
        if layer is not None:
            lifecycle = layer.lifecycle
            inner: Any = lifecycle.inner
            if inner is None:
                inner = lifecycle.odd_inner
            if inner is not None:
                return inner
        # On the class there is none: a dataclass would take it for a default.
        name = (owner or type(layer)).__name__
        raise AttributeError(f"{name} has no inner layer")

    def __set__(self, layer: Layer, inner: Any) -> None:
        set_inner(layer, inner)

    def __delete__(self, layer: Layer) -> None:
        set_inner(layer, None)


class _SlottedInner:
    """The member of ``__slots__ = ("inner",)``, which would hide :class:`_Inner`."""

    def __init__(self, member: Any) -> None:
        self._member = member

    def __get__(self, layer: Layer | None, owner: type | None = None) -> Any:
        if layer is None:
            raise AttributeError("inner")
        return self._member.__get__(layer, owner)

    def __set__(self, layer: Layer, inner: Any) -> None:
        self._member.__set__(layer, inner)
        set_inner(layer, inner)


def _ask(layer: Layer, name: str, *, otherwise: Any) -> Any:
    """What the layer below answers; ``otherwise`` if there is none."""
    inner = layer.lifecycle.inner
    return otherwise if inner is None else getattr(inner, name)


def _ask_below(layer: Layer, name: str) -> Any:
    """What the first layer directly below that knows answers; None if none knows."""
    inner, asked = layer.lifecycle.inner, layer.layers_below
    if len(asked) > 1 and layer.is_writer:
        # Of several that it writes to, ``inner`` is the main one.
        others = [one for one in layer.writes_below if one is not inner]
        asked = tuple(one for one in asked if not any(one is other for other in others))
    answers = (getattr(one, name, None) for one in asked)
    return next((one for one in answers if one is not None), None)


_NOTHING: Final = object()
_new: Final = object.__new__
_set_attribute: Final = object.__setattr__


def overrides(cls: type, name: str, base: type) -> bool:
    """Whether ``cls`` has another ``name`` than ``base``, from wherever it inherits that."""
    return inspect.getattr_static(cls, name, _NOTHING) is not inspect.getattr_static(
        base, name, _NOTHING
    )


def _said_beside(cls: type, name: str, flag: str) -> object:
    """The ``flag`` of the class that ``cls`` has its ``name`` from; None if that says nothing.

    Whatever is said elsewhere is said of another ``name``.
    """
    owner = next(base for base in cls.__mro__ if name in vars(base))
    return vars(owner).get(flag)


def _refuse_copy(layer: object) -> NoReturn:
    raise TypeError(
        f"a {type(layer).__name__} cannot be copied or pickled: two objects would write to one "
        f"stream"
    )


class Layer(trio.abc.AsyncResource):
    """The base of :class:`AsyncWrite` and :class:`AsyncRead`, of which you subclass one or both.

    A layer is a writer, a reader or both. It stands alone, or above another layer, ``inner``. All
    layers over one transport are a stack. Closing one layer closes the whole stack: the layer, all
    layers above it, and all layers and streams below that these layers own.

    The attributes are questions that the library asks when a stack is closed. Override them as
    plain attributes or as properties. Each has a default that is honest for a layer that knows
    nothing. See :doc:`own_writer`.
    """

    #: The layer's state; the one name, beside those documented here, that is not yours.
    lifecycle: Lifecycle
    #: Whether the layer can be written to.
    is_writer: bool = False
    #: Whether the class is one of the library's. Such a class calls ``hold`` and ``let_go`` itself,
    #: or never holds bytes; any other one is asked for :attr:`held_bytes` after each call. Nor does
    #: an object of it override an answer by a plain attribute, so that need not be looked for.
    announces_held_bytes: bool = False
    #: Whether the class also inherits a ``__new__`` from a base that is no layer.
    inherits_new: bool = False
    overrides_held_bytes: bool = False
    #: Whether nobody need ask for :attr:`held_bytes`, since the class never holds any.
    holds_nothing: bool = False
    overrides_inner: bool = False
    overrides_keeps_messages: bool = False
    overrides_layers_below: bool = False
    overrides_owns_below: bool = False
    overrides_release: bool = False
    #: Whether :meth:`release` may wait, and so has to be shielded. A class whose own ``release``
    #: awaits nothing says no beside it.
    release_waits: bool = False
    overrides_poll_close: bool = False
    overrides_poll_flush_side: bool = False
    overrides_poll_shutdown: bool = False
    overrides_poll_write: bool = False
    #: Whether the output has records or blocks of its own, as with TLS and compression, and the
    #: layer finishes the current one when a message is cut short. Then the message does not tear
    #: the layers below.
    encodes: bool = False
    #: Whether a message that was cut short makes the layer unusable. False for writers into
    #: memory, and for a layer that can finish or undo a partial message.
    can_be_torn: bool = True

    # Hidden from type checkers: __new__ is at odds with every __init__.
    if not TYPE_CHECKING:  # pragma: no branch

        def __new__(cls, *_args: object, **_kwargs: object) -> Self:
            # super() takes as long as all the rest.
            self = super().__new__(cls) if cls.inherits_new else _new(cls)
            # Not by assignment, for frozen dataclasses.
            _set_attribute(self, "lifecycle", Lifecycle())
            return self

        # A class says what its own is: ``self.inner = wrap_stream(stream)``.
        inner = _Inner()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, instead in (("lifecycle", None), ("unsent_bytes", "held_bytes")):
            if overrides(cls, name, Layer):
                advice = f"; override {instead}" if instead else ""
                raise TypeError(f"{cls.__name__} overrides {name}, which is the library's{advice}")
        others = cls.__mro__[cls.__mro__.index(Layer) + 1 :]
        cls.inherits_new = any("__new__" in vars(base) for base in others[:-1])
        cls.overrides_held_bytes = overrides(cls, "held_bytes", Layer)
        if cls.overrides_held_bytes:
            said = _said_beside(cls, "held_bytes", "announces_held_bytes")
            cls.announces_held_bytes = said is True
        cls.holds_nothing = cls.announces_held_bytes and not cls.overrides_held_bytes
        cls.overrides_keeps_messages = overrides(cls, "keeps_messages", Layer)
        cls.overrides_layers_below = overrides(cls, "layers_below", Layer)
        cls.overrides_owns_below = overrides(cls, "owns_below", Layer)
        cls.overrides_release = overrides(cls, "release", Layer)
        if cls.overrides_release:
            cls.release_waits = _said_beside(cls, "release", "release_waits") is not False
        inner = inspect.getattr_static(cls, "inner")
        if inspect.ismemberdescriptor(inner):
            inner = _SlottedInner(inner)
            setattr(cls, "inner", inner)  # noqa: B010 - hidden from type checkers
        cls.overrides_inner = not isinstance(inner, (_Inner, _SlottedInner))

    # ---- Where it stands -------------------------------------------------------------------

    @answer
    def layers_below(self) -> tuple[object, ...]:
        """All layers directly below: ``inner``. Override it in a layer over several streams."""
        inner = self.lifecycle.inner
        return () if inner is None else (inner,)

    @answer
    def writes_below(self) -> tuple[object, ...]:
        """Those of :attr:`layers_below` that this layer writes to: all that are writers.

        Override it in a layer that only reads from one of them.
        """
        return self.layers_below

    @answer
    def foreign_below(self) -> tuple[object, ...]:
        """Streams of other libraries directly below, which are closed with this layer: none."""
        return ()

    def owns_below(self, is_closing: Callable[[object], bool]) -> bool:
        """Whether closing this layer closes those below: yes.

        Override it in a handle that leaves the layer below open.

        Args:
            is_closing: says of a layer whether it is closed, or about to be.
        """
        return True

    @answer
    def shuts_down_below(self) -> bool:
        """Whether a shutdown of this layer shuts down those that it writes to.

        Yes, unless it has a ``poll_shutdown`` of its own and does not own the layers below. While
        others have something to write to a layer that would be shut down, the shutdown is refused.
        """
        return not self.overrides_poll_shutdown or self.owns_below(lambda _: False)

    @answer
    def held_bytes(self) -> int:
        """How many bytes this layer itself has accepted and not passed on, in its own unit.

        Override it in a layer that holds bytes. The library asks after each call; an answer that
        raises counts as held.
        """
        return 0

    def held_for(self, lower: object) -> int:
        """How many of :attr:`held_bytes` are still to be written to ``lower``: all.

        Override it in a layer that writes to several streams, together with
        :meth:`AsyncWrite.poll_flush_side`. An answer that raises counts as held.

        Args:
            lower: one of the layers directly below.
        """
        return self.held_bytes

    # ---- What closing asks -----------------------------------------------------------------

    @answer
    def epilogue(self) -> Epilogue:
        """What the layer writes at its proper end: nothing."""
        return Epilogue.NOTHING

    @answer
    def half_closes(self) -> bool:
        """Whether a shutdown shows the peer an end while this side can go on reading.

        The layer below answers; a layer without one says yes.
        """
        answer: bool = _ask(self, "half_closes", otherwise=True)
        return answer

    @answer
    def shows_truncation(self) -> bool:
        """Whether the peer can tell a truncated stream by this layer's missing epilogue: no.

        If so, a truncated stream over TCP ends with a FIN, and not with a reset, which would
        destroy what is still on its way.
        """
        return False

    @answer
    def peer_ended(self) -> bool | None:
        """Whether the peer has properly ended its direction, as far as was seen.

        None if it is unknown. The layer below answers.
        """
        answer: bool | None = _ask(self, "peer_ended", otherwise=None)
        return answer

    @answer
    def close_notify_received(self) -> bool | None:
        """Whether the peer's TLS close_notify was seen; None without TLS.

        The layer below answers.
        """
        answer: bool | None = _ask(self, "close_notify_received", otherwise=None)
        return answer

    @answer
    def was_reset(self) -> bool:
        """Whether any call has met a reset of the connection. The layer below answers."""
        answer: bool = _ask(self, "was_reset", otherwise=False)
        return answer

    @answer
    def unacknowledged_bytes(self) -> int | None:
        """How many bytes the peer's kernel has not acknowledged; None where nobody can tell.

        The layer below answers.
        """
        answer: int | None = _ask(self, "unacknowledged_bytes", otherwise=None)
        return answer

    @answer
    def descriptor(self) -> int | None:
        """The transport's file descriptor, for probes; None if there is none, or it is closed.

        The layer below answers.
        """
        answer: int | None = _ask(self, "descriptor", otherwise=None)
        return answer

    @answer
    def peer_address(self) -> Any:
        """The peer's address, as :meth:`socket.socket.getpeername` gives it.

        ``(host, port)`` for IPv4, ``(host, port, flowinfo, scope_id)`` for IPv6, a path for a Unix
        socket, and ``""`` for one without a name; None without a socket. The layer below answers.
        """
        return _ask_below(self, "peer_address")

    @answer
    def local_address(self) -> Any:
        """This side's address, as :meth:`socket.socket.getsockname` gives it.

        In the same forms as :attr:`peer_address`. The layer below answers.
        """
        return _ask_below(self, "local_address")

    @answer
    def carries_data(self) -> bool:
        """Whether the bytes that the layers below hold may contain user data: yes.

        Only layers that encode are asked. Without user data (only a TLS handshake or alert, for
        example), bytes that were not sent do not count as lost.
        """
        return True

    @answer
    def keeps_messages(self) -> bool:
        """Whether the layer accepts a message whole or not at all, however many parts it has.

        The layer below answers.
        """
        answer: bool = _ask(self, "keeps_messages", otherwise=False)
        return answer

    @answer
    def close_patience(self) -> float:
        """For a wait that itself does the work: how many seconds a cancelled close waits for it.

        For example, the wait calls the ``send_all`` of a foreign stream. The layer below answers;
        without one it is 0.
        """
        answer: float = _ask(self, "close_patience", otherwise=0.0)
        return answer

    @answer
    def discarded_bytes(self) -> int:
        """How many bytes from the peer this layer has thrown away while it was closed: 0."""
        return 0

    @answer
    def loss_is_unknown(self) -> bool:
        """Whether held bytes may still be written after the close, as by a worker thread: no."""
        return False

    @answer
    def splices(self) -> bool:
        """Whether the system may move bytes to and from this layer's descriptor by itself: no.

        Only a transport can say yes, for a layer above it has to see the bytes.
        """
        return False

    def drain_source(self) -> trio.abc.ReceiveStream | None:
        """The stream that a graceful close reads to its end, throwing the bytes away.

        Returns:
            The stream; None if there is none. A reader returns itself; for any other layer that
            owns the one below, that one answers.
        """
        answer: trio.abc.ReceiveStream | None = None
        if self.owns_below(lambda _: False):
            inner = self.lifecycle.inner
            if inner is not None:
                answer = inner.drain_source()
        return answer

    def end_use_by_others(self) -> None:
        """End the use of a transport through the object that it was made of, if that can be done.

        Called before input is thrown away: a task that goes on reading there would get the rest,
        with a hole.
        """

    def arm_reset(self, *, on: bool) -> None:
        """Let the operating system reset the connection if the process ends now.

        For transports. Only TCP has something to do here.

        Args:
            on: False undoes it.
        """

    # ---- Its end ---------------------------------------------------------------------------

    @answer
    def closed(self) -> bool:
        """Whether the layer is closed, or being closed; a new layer over a closed one is closed."""
        return is_closed(self)

    @property
    def unsent_bytes(self) -> int:
        """How many accepted bytes have not left: the sum of ``held_bytes`` from here downwards.

        Each layer counts in its own unit. It stays valid after a close.
        """
        return unsent_below(self)

    async def release(self, *, clean: bool) -> None:
        """Free what this layer itself holds; called once, after all layers above were released.

        It never waits for a peer and works in a cancelled scope (it is shielded). The layers
        below are released by the library.

        Args:
            clean: whether the stream may look complete to the peer. If not, a transport makes
                the truncated end visible where its protocol can show it.

        Cancellation: nothing happened, since it is not cancelled: the library shields it.
        Checkpoints: not necessarily one.
        """

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Close this layer, all layers above it, and all layers and streams that these own below.

        As soon as the close begins, calls from other tasks raise :exc:`trio.ClosedResourceError`.
        Then each layer, uppermost first, is flushed and writes its epilogue, for as long as it
        takes. In any case all are released. If another task is closing the stack already, this
        call waits for it. Once closed, calling it again does nothing.

        If a message was cut short, the stack ends at once, without epilogues, so that its peer
        can tell. If a ``send_all`` was cancelled with bytes unsent, one attempt is made to send
        them, without waiting.

        Raises:
            trio.BrokenResourceError: if the transport fails, and no earlier call has raised that.
                Everything is closed all the same.
            trio.ClosedResourceError: if another task cut this close short, or had closed this
                layer and lost bytes that it had accepted.

        Cancellation: lost, for bytes that could not be sent at once: each layer is flushed once,
            without waiting, and no epilogue is written. A :exc:`ResourceWarning` says how many
            bytes, and :attr:`unsent_bytes` keeps the count. To be able to resume, call
            :meth:`AsyncWrite.shutdown` first.

        Source: :meth:`trio.abc.AsyncResource.aclose`.
        """
        if not self.lifecycle.attached:
            attach(self)
        await close_layer(self, Hardness.CLEAN)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it; the exception of the block is never replaced by one of the close."""
        if not self.lifecycle.attached:
            attach(self)
        if exc_value is None:
            await close_layer(self, Hardness.CLEAN)  # noqa: ASYNC102
            return
        # Half of a message may have been sent: no epilogue says that it was all. And the exception
        # of the block is the one that is raised.
        with contextlib.suppress(Exception, trio.Cancelled):
            await close_layer(self, Hardness.CUT_OFF, joins_gently=True)  # noqa: ASYNC102

    # ---- Not to be copied ------------------------------------------------------------------

    def __copy__(self) -> NoReturn:
        _refuse_copy(self)

    def __deepcopy__(self, memo: object) -> NoReturn:
        _refuse_copy(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        _refuse_copy(self)

    def __del__(self) -> None:
        if self.holds_nothing:
            return
        lifecycle = getattr(self, "lifecycle", None)
        if lifecycle is None or lifecycle.released or lifecycle.holds_nobodys:
            return
        count = held_by(self)
        if lifecycle.has_ended_side:
            count = held_for_some(self, [one for one in below(self) if not is_closed(one)])
        # An answer that raises may be that of an object whose __init__ has failed: no word.
        if count:
            fate = "may be lost" if self.loss_is_unknown else "were never sent"
            lost = f"{count} bytes that it had accepted {fate}"
            warn(f"{self!r} was garbage-collected: {lost}", self)
