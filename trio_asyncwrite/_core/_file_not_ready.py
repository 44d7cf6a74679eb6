"""The answer of a poll whose file is to blame, and not its writer."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from ._errors import NotReady

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class FileNotReady(NotReady):
    """It is the file that is not ready, or has failed, and not the writer.

    What a poll raises breaks the writer; what a *wait* raises breaks nothing. So a poll that meets
    a failure of the file raises this, and the wait raises the failure.

    Args:
        wait: waits until the file was read, or raises the failure.
        error: the failure.
    """

    def __init__(
        self, wait: Callable[[], Awaitable[object]], error: Exception | None = None
    ) -> None:
        super().__init__(wait)
        self.error = error

    @classmethod
    def failed(cls, error: Exception) -> FileNotReady:
        """The answer of a poll for a file that cannot be read."""
        return cls(_Failure(error).wait, error)


@final
class _Failure:
    """Raises an error out of a wait, and does not keep it: its traceback refers to who waits."""

    __slots__ = ("_error",)

    def __init__(self, error: Exception) -> None:
        self._error: Exception | None = error

    async def wait(self) -> None:
        """Raise the error; for a second task, return."""
        await trio.lowlevel.checkpoint()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
