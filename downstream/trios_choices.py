"""The tests of Trio's that fail with our streams in place of Trio's, and why that is right.

Each tests a choice of Trio's that we make otherwise. A test that is not here must pass, and one
that is here must fail, with that error: suites.py sees to both.
"""

from __future__ import annotations

from typing import NamedTuple


class Choice(NamedTuple):
    """How a test fails with our streams, and why."""

    #: A part of the message.
    error: str
    reason: str


BROKEN = (
    "Trio's streams pass on whatever a stream below them raises. Here, a failure of send_all, "
    "send_eof or aclose is a BrokenResourceError from it: it stays, and whoever calls next is told "
    "the same."
)
HANDSHAKE = (
    "Trio's aclose makes a handshake that was not made, to say close_notify afterwards. Here it "
    "closes the transport: without a session there is nothing to end, and no close waits for a "
    "peer that it does not have to hear."
)
PACKETS = Choice(
    "TypeError: expected a byte stream (SOCK_STREAM), got a socket of type SOCK_DGRAM",
    "A socket of another type is a ValueError in Trio, and a TypeError here, like every object "
    "that is no byte stream.",
)

NO_HANDLER = "They serve with None for a handler. Ours is refused before the first connection."

#: By the name of the test; all its parameters fail alike.
FAIL = {
    f"trio._tests.test_{name}": choice
    for name, choice in {
        "highlevel_generic.test_StapledStream": Choice(
            "assert [] == ['send_eof']",
            "A StapledStream closes a send stream without send_eof in its own send_eof, once more "
            "in the next, and once more in aclose. A pair ends and closes it once.",
        ),
        "highlevel_generic.test_StapledStream_with_erroring_close": Choice(
            "trio.BrokenResourceError: <writer over BrokenSendStream(record=['aclose'])>: "
            "ValueError('send error')",
            BROKEN,
        ),
        "highlevel_serve_listeners.test_serve_listeners_accept_capacity_error": Choice(
            "expected an async function as handler, got NoneType", NO_HANDLER
        ),
        "highlevel_serve_listeners.test_serve_listeners_accept_unrecognized_error": Choice(
            "Raised exception group did not match: `TypeError()` is not an exception group",
            NO_HANDLER,
        ),
        "highlevel_socket.test_SocketListener": PACKETS,
        "highlevel_socket.test_SocketStream_basics": PACKETS,
        "ssl.test_closing_nice_case": Choice(
            "TLS handshake failed: the peer closed the connection during the handshake", HANDSHAKE
        ),
        "ssl.test_receive_error_during_handshake": Choice(
            "KeyError",
            "Trio's stream is lost when a handshake is cut short. Here it can be resumed: what "
            "receive_some of the stream below raises goes to the caller, who may call again.",
        ),
        "ssl.test_send_all_fails_in_the_middle": Choice("KeyError", BROKEN),
        "ssl.test_send_error_during_handshake": Choice("KeyError", BROKEN),
        "ssl.test_ssl_handshake_failure_during_aclose": Choice("DID NOT RAISE", HANDSHAKE),
        "ssl.test_ssl_only_closes_stream_once": Choice(
            "KeyError",
            f"{BROKEN} And a transport that can be half-closed is, before it is closed; a "
            "StapledStream closes its send stream for either.",
        ),
        "unix_pipes.test_pipe_errors": Choice(
            "max_bytes must be an integer of at least 1, got 0",
            "It asks for Trio's wording of an error. Ours also says what was given.",
        ),
    }.items()
}

#: Of trio-websocket's.
FAIL_OF_WEBSOCKET = {
    "test_connection.test_client_open_timeout": Choice(
        "Should not reach this line.",
        "Its handler comes to this line with Trio's streams as well. The test ends, and is "
        "cancelled, while the connection is being closed: then Trio's server raises Cancelled in "
        "place of what the handler raised, and ours raises both.",
    ),
}
