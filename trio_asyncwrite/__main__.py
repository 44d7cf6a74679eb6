"""The command line: ``python -m trio_asyncwrite``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from ._version import __version__

_DESCRIPTION = "Tokio's AsyncWrite for Trio: writers that survive cancellation."

_DEMO = """\
Sends files through a BufWriter to a receiver on the loopback interface, cancels the sender in
the middle of its writes, at random places, and resumes it. The receiver verifies every byte.
Then does the same with Trio's own send_all, and shows what that lost. First over TCP, then with
TLS and a certificate authority that is thrown away afterwards. Then it sends one large file, in
the same ways, and through a relay that is cancelled. At last, a server answers while the client
still sends, and closes: gracefully, and with Trio's own aclose.
"""

_STATUS = """\
exit status: 0 if everything arrived whole through the writer of this library, and ended clean;
1 if a byte is missing or wrong, or an ending not clean; 2 if the arguments are wrong; 3 if the
result could not be written to standard output; 130 after Ctrl-C; 141 if the reader of standard
output has left.
"""


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


_count.__name__ = "whole number"  # how argparse calls it: "invalid whole number value: '-1'"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trio_asyncwrite", description=_DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"trio_asyncwrite {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="send real files, be cancelled, lose nothing",
        description=_DEMO,
        epilog=_STATUS,
        allow_abbrev=False,
    )
    demo.add_argument(
        "path",
        nargs="?",
        type=Path,
        metavar="PATH",
        help="the file or folder to send (the sources of Python's standard library)",
    )
    demo.add_argument(
        "--cancels",
        type=_count,
        default=200,
        metavar="N",
        help="how often to cancel the sender (%(default)s)",
    )
    demo.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="what the places of the cancellations are drawn from (%(default)s)",
    )
    demo.add_argument(
        "--answers",
        type=_count,
        default=20,
        metavar="N",
        help="how often to answer early and close, each way; 0 leaves it out (%(default)s)",
    )
    demo.add_argument(
        "--transport",
        action="append",
        choices=["tcp", "tls"],
        help="what to send over; may be given several times (all of them)",
    )
    return parser


#: Standard output cannot be written to.
_OUTPUT_FAILED: Final = 3

#: As a shell reports a program that SIGPIPE has ended: the reader of standard output has left.
_READER_LEFT: Final = 141


def _give_up(error: BaseException) -> int:
    """Let go of standard output, which has failed; return the exit status."""
    # The rest of the text is still in its buffer, and would fail once more when Python ends.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        number = sys.stdout.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
    if isinstance(error, BrokenPipeError):
        return _READER_LEFT
    with contextlib.suppress(OSError):
        print(f"trio_asyncwrite: cannot write to standard output: {error}", file=sys.stderr)
    return _OUTPUT_FAILED


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit status.

    Raises:
        SystemExit: with 2, if it says nothing that could be done; with 0, for ``--help``, or with
            3 or 141 if standard output does not take that.
    """
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as exc:
            raise SystemExit(_give_up(exc)) from None
        raise

    # Not for --help and --version.
    from ._demo import (  # noqa: PLC0415
        TRANSPORTS,
        MissingExtraError,
        OutputError,
        SourceError,
        run_demo,
    )

    try:
        transports = [TRANSPORTS[name]() for name in options.transport or TRANSPORTS]
        return run_demo(
            options.path,
            cancels=options.cancels,
            seed=options.seed,
            answers=options.answers,
            transports=transports,
        )
    except (MissingExtraError, SourceError) as exc:
        parser.error(str(exc))
    except OutputError as exc:
        return _give_up(exc.__cause__ or exc)


if __name__ == "__main__":
    sys.exit(main())
