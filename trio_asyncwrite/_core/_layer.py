"""What writers and readers have in common: a place in a stack, and an end."""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

import trio
import trio.abc

from ._close import Hardness, close_layer
from ._lifecycle import Lifecycle
from ._stack import attach, held_by, set_inner, unsent_below, warn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self


T = TypeVar("T")


class answer(Generic[T]):  # noqa: N801 - used as ``property`` is
    """A property that a class, or an instance by a plain attribute, may override."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, layer: None, owner: type) -> Self: ...
    @overload
    def __get__(self, layer: object, owner: type | None = None) -> T: ...

    def __get__(self, layer: object | None, owner: type | None = None) -> Self | T:
        return self if layer is None else self._function(layer)


class Epilogue(enum.Enum):
    """What a layer writes at its proper end, before the layer below ends."""

    #: Nothing: the end of the layer below is its end.
    NOTHING = "nothing"
    #: Data, such as a compressor's trailer. A peer that does not get it has not got everything.
    DATA = "data"
    #: TLS's close_notify: it says that nothing is missing, and carries no data.
    CLOSE_NOTIFY = "close_notify"
    #: Nobody knows: it is written by the close of a stream that is not ours.
    WITH_CLOSE = "with its close"

    @property
    def comes_with_close(self) -> bool:
        """Whether a shutdown leaves something to do for the last poll of a clean close."""
        return self is Epilogue.WITH_CLOSE


class _Inner:
    """``layer.inner``: the layer below. Setting it makes the layer known to that one."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.__doc__ = "The layer below."

    def __get__(self, layer: Layer | None, owner: type | None = None) -> Any:
        # On the class there is none: a dataclass would take it for a default.
        lifecycle = None if layer is None else layer.lifecycle
        inner = None if lifecycle is None else lifecycle.inner or lifecycle.odd_inner
        if inner is None:
            name = (owner or type(layer)).__name__
            raise AttributeError(f"{name} has no inner layer")
        return inner

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


def _refuse_copy(layer: object) -> NoReturn:
    raise TypeError(
        f"a {type(layer).__name__} cannot be copied or pickled: two objects would write to one "
        f"stream"
    )


class Layer(trio.abc.AsyncResource):
    """A writer, a reader, or both; alone or above other layers.

    The names below are what layers answer when a stack is closed: see "What closing asks" in the
    guide to your own writers. Each has a default that is honest for a layer that knows nothing.
    """

    #: The layer's state; the one name, beside those documented here, that is not yours.
    lifecycle: Lifecycle
    #: Whether it can be written to.
    is_writer: bool = False
    #: How many bytes this layer itself has accepted and not passed on, in its own unit. A layer
    #: that holds bytes overrides it, as an attribute or a property.
    held_bytes: int = 0
    #: Whether the layer calls ``hold`` and ``let_go`` itself, as the library's do; any other one is
    #: asked for :attr:`held_bytes` after each call.
    announces_held_bytes: bool = False
    overrides_held_bytes: bool = False
    overrides_keeps_messages: bool = False
    overrides_layers_below: bool = False
    overrides_owns_below: bool = False
    overrides_release: bool = False
    overrides_poll_close: bool = False
    #: Whether it writes other bytes than it accepts, as TLS and compression do.
    encodes: bool = False
    #: Whether a message that was cut short makes it unusable. False for writers into memory.
    can_be_torn: bool = True

    # Hidden from type checkers: __new__ is at odds with every __init__.
    if not TYPE_CHECKING:

        def __new__(cls, *_args: object, **_kwargs: object) -> Self:
            self = super().__new__(cls)
            # Not by assignment, for frozen dataclasses.
            object.__setattr__(self, "lifecycle", Lifecycle())
            return self

        # A class says what its own is: ``self.inner = wrap_stream(stream)``.
        inner = _Inner()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        for name, instead in (("lifecycle", None), ("unsent_bytes", "held_bytes")):
            if name in own:
                advice = f"; override {instead}" if instead else ""
                raise TypeError(f"{cls.__name__} overrides {name}, which is the library's{advice}")
        cls.overrides_held_bytes = cls.overrides_held_bytes or "held_bytes" in own
        cls.overrides_keeps_messages = cls.overrides_keeps_messages or "keeps_messages" in own
        cls.overrides_layers_below = cls.overrides_layers_below or "layers_below" in own
        cls.overrides_owns_below = cls.overrides_owns_below or "owns_below" in own
        cls.overrides_release = cls.overrides_release or "release" in own
        # The trait itself, which says that it is a writer, has the default.
        cls.overrides_poll_close = cls.overrides_poll_close or (
            "poll_close" in own and "is_writer" not in own
        )
        member = own.get("inner")
        if type(member).__name__ == "member_descriptor":
            cls.inner = _SlottedInner(member)  # type: ignore[attr-defined]

    # ---- Where it stands -------------------------------------------------------------------

    @answer
    def layers_below(self) -> tuple[object, ...]:
        """Everything that this layer is over: ``inner``, unless you override it."""
        inner = self.lifecycle.inner
        return () if inner is None else (inner,)

    @answer
    def foreign_below(self) -> tuple[object, ...]:
        """Streams that are no layers and are closed with this one."""
        return ()

    def owns_below(self, is_closing: Callable[[object], bool]) -> bool:
        """Whether closing this layer closes those below.

        Args:
            is_closing: tells of a layer whether it is closed, or about to be.
        """
        return True

    # ---- What closing asks -----------------------------------------------------------------

    @answer
    def epilogue(self) -> Epilogue:
        """What it writes at its proper end."""
        return Epilogue.NOTHING

    @answer
    def half_closes(self) -> bool:
        """Whether its shutdown lets the peer see an end while this side can go on reading."""
        answer: bool = _ask(self, "half_closes", otherwise=True)
        return answer

    @answer
    def shows_truncation(self) -> bool:
        """Whether the peer can tell a truncated stream by this layer's missing epilogue."""
        return False

    @answer
    def peer_ended(self) -> bool | None:
        """Whether the peer has properly ended its direction, as far as was seen; None: unknown."""
        answer: bool | None = _ask(self, "peer_ended", otherwise=None)
        return answer

    @answer
    def close_notify_received(self) -> bool | None:
        """Whether the peer's TLS close_notify was seen; None without TLS."""
        answer: bool | None = _ask(self, "close_notify_received", otherwise=None)
        return answer

    @answer
    def was_reset(self) -> bool:
        """Whether the connection is known to have been reset, by whatever call was told."""
        answer: bool = _ask(self, "was_reset", otherwise=False)
        return answer

    @answer
    def unacknowledged_bytes(self) -> int | None:
        """Bytes that the peer's kernel has not acknowledged; None where nobody can tell."""
        answer: int | None = _ask(self, "unacknowledged_bytes", otherwise=None)
        return answer

    @answer
    def descriptor(self) -> int | None:
        """The transport's file descriptor, for probes; None if there is none, or it is closed."""
        answer: int | None = _ask(self, "descriptor", otherwise=None)
        return answer

    @answer
    def keeps_messages(self) -> bool:
        """Whether a message is accepted whole or not at all, however many parts it has."""
        answer: bool = _ask(self, "keeps_messages", otherwise=False)
        return answer

    @answer
    def close_patience(self) -> float:
        """How long a single wait may take when a close must not wait, in seconds.

        0, unless the wait itself does the work: the ``send_all`` of a foreign stream.
        """
        answer: float = _ask(self, "close_patience", otherwise=0.0)
        return answer

    @answer
    def discarded_bytes(self) -> int:
        """Bytes from the peer that this layer has thrown away while it was closed."""
        return 0

    @answer
    def loss_is_unknown(self) -> bool:
        """Whether the bytes that are still held at the close may yet arrive."""
        return False

    def drain_source(self) -> trio.abc.ReceiveStream | None:
        """The stream to read and throw away from, while the stack ends; None if there is none."""
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
        """Let the system reset the connection when the process ends now; for TCP."""

    # ---- Its end ---------------------------------------------------------------------------

    @answer
    def closed(self) -> bool:
        """Whether it is closed, or being closed."""
        return self.lifecycle.close is not None or self.lifecycle.released

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
        """End the stack, with everything above this layer and all that these own below.

        All layers refuse everybody else from the first moment; another task inside one of them
        gets :exc:`trio.ClosedResourceError`. Then every layer, uppermost first, is flushed and
        writes its epilogue, for as long as it takes; and all are released, in any case. A task
        that is closing them already is waited for. Once closed, calling it again does nothing.

        A stack whose last message was cut short ends at once, without epilogues, so that its peer
        can tell. One whose ``send_all`` was given up is polled once and not waited for.

        Raises:
            trio.BrokenResourceError: if the close finds the transport failed, and the caller has
                not been told before. Everything is closed all the same.
            trio.ClosedResourceError: if another task cut this close short, or had closed this
                layer and lost bytes that it had accepted.

        Cancellation: lost, for what could not be sent at once: each layer's flush is polled once,
            no epilogue is written. A :exc:`ResourceWarning` says how many bytes, and
            :attr:`unsent_bytes` keeps the count; :meth:`AsyncWrite.shutdown` first is resumable.

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
            await close_layer(self, Hardness.CLEAN)
            return
        # Half of a message may have been sent: no epilogue says that it was all. And the exception
        # of the block is the one that is raised.
        with contextlib.suppress(Exception, trio.Cancelled):
            await close_layer(self, Hardness.CUT_OFF, joins_gently=True)

    # ---- Not to be copied ------------------------------------------------------------------

    def __copy__(self) -> NoReturn:
        _refuse_copy(self)

    def __deepcopy__(self, memo: object) -> NoReturn:
        _refuse_copy(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        _refuse_copy(self)

    def __del__(self) -> None:
        lifecycle = getattr(self, "lifecycle", None)
        if lifecycle is not None and not lifecycle.released:
            count = held_by(self)
            if count:
                fate = "may be lost" if self.loss_is_unknown else "were never sent"
                warn(
                    f"{self!r} was garbage-collected: {count} bytes that it had accepted {fate}",
                    self,
                )
