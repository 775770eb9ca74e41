"""A way to the API server that a test can cut, or let fall silent, without harm to anyone else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from testbed.controlplane import ControlPlane
from testbed.processes import free_port


class Relay:
    """Hands on what comes to its port, both ways."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self.port = free_port()
        self.kubeconfig = folder / f"relay-{self.port}.kubeconfig"
        text = control_plane.kubeconfig.read_text()
        assert control_plane.url in text
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(text.replace(control_plane.url, f"https://127.0.0.1:{self.port}"))
        self._target = control_plane.port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Break every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def silence(self) -> None:
        """Take everything and say nothing."""
        self._flowing.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            answers, onward = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(onward)
            await asyncio.gather(self._hand_on(reader, onward), self._hand_on(answers, writer))
        except (OSError, asyncio.CancelledError):
            pass  # cut, or hung up
        finally:
            self._connections.discard(task)
            for one in writers:
                one.transport.abort()

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def relayed(control_plane: ControlPlane, folder: Path) -> AsyncIterator[Relay]:
    """An open relay, until the end of the block."""
    relay = Relay(control_plane, folder)
    await relay.open()
    try:
        yield relay
    finally:
        await relay.cut()
