"""The main job: send real files, be cancelled at random, lose nothing, and prove it.

``job`` lets every ``sender`` do the same job over every ``transport``. A sender cuts the files
(``source``) into messages (``wire``). The receiver (``delivery``) stops reading at random
places and has the sender cancelled there, in the middle of its wait (``cancellations``); it
judges what arrives by what the stream says itself (``wire``) and against what was meant to be
sent (``tape``). ``file`` does the same with one large file, and ``relay`` with a relay in between.
Then ``answers`` ends connections while the peer still sends. ``table`` shows the outcome,
``progress`` what happens meanwhile, ``output`` says it.
"""

from __future__ import annotations

from .job import run_demo
from .output import OutputError
from .source import SourceError
from .transport import TRANSPORTS, MissingExtraError

__all__ = ("TRANSPORTS", "MissingExtraError", "OutputError", "SourceError", "run_demo")
