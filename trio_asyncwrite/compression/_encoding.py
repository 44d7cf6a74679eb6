"""A call of an encoder in a worker thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from trio_asyncwrite._core._thread_call import ThreadCall

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class Encoding(ThreadCall):
    """One call of an encoder in a worker thread, and its answer.

    Raises:
        RuntimeError: if there is no thread to be had.
    """

    def __init__(self, function: Callable[..., object], *data: bytes) -> None:
        super().__init__()
        self._answer: object = None

        def call() -> None:
            self._answer = function(*data)

        self.start(call)

    def collect(self) -> Any:
        """What the call has returned; or raise what it has raised."""
        self.raise_error()
        return self._answer
