"""Programs that decompress: curl, and gunzip."""

from __future__ import annotations

import runpy
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_asyncwrite import serve_tcp
from trio_asyncwrite.compression import CompressWriter, gzip_compressor

from .._peers import find_peer
from ..core._fakes import resource_warnings

RECIPE = Path(__file__).parents[2] / "docs" / "recipes" / "compressed_http.py"
PAGE = b"Compressed. Not an event. \n" * 1000


async def test_curl_decodes_bodies_in_every_encoding_it_knows() -> None:
    curl = find_peer("curl")
    version = (await trio.run_process([curl, "--version"], capture_stdout=True)).stdout
    serve = runpy.run_path(str(RECIPE))["serve"]
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/page"
        for encoding in ["gzip", "zstd"] if b" zstd" in version else ["gzip"]:
            command = [curl, "--silent", "--show-error", "--include", "--compressed"]
            command += ["--header", f"Accept-Encoding: {encoding}", url]
            done = await trio.run_process(command, capture_stdout=True)
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            assert f"content-encoding: {encoding}\r\n".encode() in head.lower()
            assert body == PAGE
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut short"])
async def test_gunzip_tells_a_whole_stream_from_one_that_was_cut_short(*, whole: bool) -> None:
    command = [find_peer("gzip"), "--decompress", "--stdout"]
    async with trio.open_nursery() as nursery:
        start: Any = partial(
            trio.run_process,
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        process = await nursery.start(start)
        writer = CompressWriter(process.stdin, gzip_compressor())
        await writer.send_all(PAGE)
        with resource_warnings():
            if whole:
                await writer.aclose()
            else:
                await trio.aclose_forcefully(writer)
        received = b"".join([bytes(chunk) async for chunk in process.stdout])
        code = await process.wait()
    assert received == PAGE
    assert (code == 0) is whole
