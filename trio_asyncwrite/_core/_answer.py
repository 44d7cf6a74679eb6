"""How a layer answers: by a property that a class, or one object, may override."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["answer"]

if TYPE_CHECKING:
    # A type checker then lets a property of yours override it.
    from builtins import property as answer
    from collections.abc import Callable
else:

    class answer:  # noqa: N801 - used as ``property`` is
        """A property that a class, or an instance by a plain attribute, may override."""

        def __init__(self, function: Callable[[Any], object]) -> None:
            self.fget = function
            self.__doc__ = function.__doc__

        def __get__(self, layer: object | None, owner: type | None = None) -> object:
            return self if layer is None else self.fget(layer)
