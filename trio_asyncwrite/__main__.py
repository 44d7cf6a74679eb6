"""The command line: ``python -m trio_asyncwrite``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ._version import __version__

_DESCRIPTION = "Tokio's AsyncWrite for Trio: writers that survive cancellation."

_DEMO = """\
Sends files through a BufWriter to a receiver on the loopback interface, cancels the sender in
the middle of its writes, at random places, and resumes it. The receiver verifies every byte.
Then does the same with Trio's own send_all, and shows what that lost. First over TCP, then with
TLS and a certificate authority that is thrown away afterwards. At last, a server answers while
the client still sends, and closes: gracefully, and with Trio's own aclose.
"""

_STATUS = """\
exit status: 0 if everything arrived whole through the writer of this library, and ended clean;
1 if a byte is missing or wrong, or an ending not clean; 2 if the arguments are wrong; 130 after
Ctrl-C.
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


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit status.

    Raises:
        SystemExit: with 2, if it says nothing that could be done; with 0, for ``--help``.
    """
    parser = _parser()
    options = parser.parse_args(arguments)

    # Not for --help and --version.
    from ._demo import (  # noqa: PLC0415
        TRANSPORTS,
        MissingExtraError,
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


if __name__ == "__main__":
    sys.exit(main())
