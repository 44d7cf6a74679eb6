"""The example programs, as modules and as processes."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def load(name: str) -> Any:
    """An example as a module."""
    full_name = f"example_{name}"
    if full_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(full_name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full_name] = module  # its dataclasses look for it there
        spec.loader.exec_module(module)
    return sys.modules[full_name]


class Program:
    """An example that runs as a process of its own."""

    def __init__(self, process: trio.Process, port: int, log: bytearray) -> None:
        self.process = process
        self.port = port
        self._log = log
        self._is_told = False

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.decode()

    def drain(self) -> None:
        """Send it SIGTERM, once: a second one would end it at once."""
        if not self._is_told:
            self._is_told = True
            self.process.terminate()


@contextlib.asynccontextmanager
async def program(name: str, *arguments: object) -> AsyncIterator[Program]:
    """Run an example; in the end it gets SIGTERM, and must end by itself without an error."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    log = bytearray()

    async def read_log(stderr: trio.abc.ReceiveStream) -> None:
        async for chunk in stderr:
            log.extend(chunk)

    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        process: trio.Process = await nursery.start(start)
        assert process.stdout is not None
        nursery.start_soon(read_log, process.stderr)
        said = b""
        while not said.endswith(b"\n"):
            chunk = await process.stdout.receive_some()
            assert chunk, log.decode()
            said += chunk
        running = Program(process, int(said.split()[-1]), log)
        try:
            yield running
        finally:
            running.drain()
            with trio.CancelScope(shield=True):
                await process.wait()
    assert process.returncode == 0, log.decode()
