"""The tests of Trio's that fail with our streams in place of Trio's, and why that is right.

Each tests a choice of Trio's that we make otherwise. A test that is not here must pass, and one
that is here must fail: suites.py sees to both.
"""

from __future__ import annotations

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
PACKETS = (
    "A socket of another type is a ValueError in Trio, and a TypeError here, like every object "
    "that is no byte stream."
)

#: The reason, by the name of the test, for all its parameters.
FAIL = {
    f"trio._tests.test_{name}": reason
    for name, reason in {
        "highlevel_generic.test_StapledStream": (
            "A StapledStream closes a send stream without send_eof in its own send_eof, once more "
            "in the next, and once more in aclose. A pair ends and closes it once."
        ),
        "highlevel_generic.test_StapledStream_with_erroring_close": BROKEN,
        "highlevel_socket.test_SocketListener": PACKETS,
        "highlevel_socket.test_SocketStream_basics": PACKETS,
        "ssl.test_closing_nice_case": HANDSHAKE,
        "ssl.test_receive_error_during_handshake": (
            "Trio's stream is lost when a handshake is cut short. Here it can be resumed: what "
            "receive_some of the stream below raises goes to the caller, who may call again."
        ),
        "ssl.test_send_all_fails_in_the_middle": BROKEN,
        "ssl.test_send_error_during_handshake": BROKEN,
        "ssl.test_ssl_handshake_failure_during_aclose": HANDSHAKE,
        "ssl.test_ssl_only_closes_stream_once": (
            f"{BROKEN} And a transport that can be half-closed is, before it is closed; a "
            "StapledStream closes its send stream for either."
        ),
        "unix_pipes.test_pipe_errors": (
            "It asks for Trio's wording of an error. Ours also says what was given."
        ),
    }.items()
}
