"""Delimiters in frames."""

from __future__ import annotations

import re


def contains(frame: bytes | memoryview, delimiter: bytes) -> bool:
    """Whether ``delimiter`` is somewhere in ``frame``; nothing is copied."""
    if type(frame) is bytes:
        return delimiter in frame
    return re.search(re.escape(delimiter), frame) is not None


def count_up_to(max_size: int, frames: list[bytes]) -> int:
    """How many of ``frames``, at least one, stand before the first that is too large."""
    if max(map(len, frames)) <= max_size:
        return len(frames)
    return next(number for number, frame in enumerate(frames) if len(frame) > max_size)
