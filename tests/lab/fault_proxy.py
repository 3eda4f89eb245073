"""A TCP proxy that fails on purpose: between a control plane and a host, or a host and the API."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from lab.namespace import Namespace

T = TypeVar("T")

_CHUNK = 65536
_CALL_S = 10


@dataclass(frozen=True, kw_only=True)
class Way:
    """What befalls octets that go one way: they take `delay_s` seconds longer, are `held` until the fault ends, as TCP
    would go on sending them, or the connection is reset behind the first `cut_after` of them (0: before any)."""

    delay_s: float = 0
    held: bool = False
    cut_after: int | None = None


FREE = Way()
HELD = Way(held=True)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What befalls connections, those that are there and new ones. `refuse`: nobody listens any more."""

    refuse: bool = False
    request: Way = FREE
    answer: Way = FREE


PASS = Fault()
REFUSE = Fault(refuse=True)
BLACK_HOLE = Fault(request=HELD, answer=HELD)
"""Connections come about, and nothing more."""
DEAF = Fault(request=HELD)
"""What is asked arrives when the fault has ended, long after who asked gave up."""
MUTE = Fault(answer=HELD)
"""What is asked is done, and nobody hears of it."""


def slow(delay_s: float) -> Fault:
    """Every piece of an answer comes so much later."""
    return Fault(answer=Way(delay_s=delay_s))


def cut(octets: int) -> Fault:
    """Every answer is cut behind so many octets of its connection."""
    return Fault(answer=Way(cut_after=octets))


class FaultProxy:
    """Listens at `address` (and a free port) inside `namespace`, and hands on to `target` there. Made without a fault;
    a context manager that ends with all its connections."""

    def __init__(self, namespace: Namespace, address: str, target: tuple[str, int]) -> None:
        self._target = target
        self._fault = PASS
        self._linger_s = 0.0
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        # A socket stays in the namespace where it was made; this one is taken up again after each refusal.
        listener = namespace.within(lambda: _listen(address, 0))
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._namespace = namespace
        self._thread = threading.Thread(target=self._run, name=f"proxy to {target[0]}", daemon=True)
        self._thread.start()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = self._call(asyncio.start_server(self._serve, sock=listener))

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def fault(self) -> Fault:
        """The present fault."""
        return self._fault

    def set(self, fault: Fault) -> None:
        """This befalls connections from now on. What was held goes on its way, unless the new fault holds it too."""
        self._call(self._set(fault))

    def heal(self, linger_s: float = 0) -> None:
        """The present fault ends. What was held comes so many seconds later still, as TCP pauses longer and longer
        between its tries, while new connections pass at once."""
        self._linger_s = linger_s
        self.set(PASS)

    def sever(self) -> None:
        """Resets the connections that are there, with all that is on its way."""
        self._call(self._sever())

    def close(self) -> None:
        """Ends it; harmless when it has ended."""
        if self._thread.is_alive():
            self._call(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_S)

    async def _set(self, fault: Fault) -> None:
        self._fault = fault
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if fault.refuse and self._server is not None:
            self._server.close()
            self._server = None
            await self._sever()
        elif not fault.refuse and self._server is None:
            listener = self._namespace.within(lambda: _listen(*self.address))
            self._server = await asyncio.start_server(self._serve, sock=listener)

    async def _sever(self) -> None:
        for connection in list(self._connections):
            connection.reset()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._sever()
        for connection in list(self._connections):
            await connection.ended.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer, asyncio.current_task())
        self._connections.add(connection)
        try:
            onward = self._namespace.within(lambda: _connecting(self._target))
            await self._loop.sock_connect(onward, self._target)
            server_reader, server_writer = await asyncio.open_connection(sock=onward)
            connection.writers.append(server_writer)
            connection.pumps = [
                self._loop.create_task(self._pump(connection, "request", reader, server_writer)),
                self._loop.create_task(self._pump(connection, "answer", server_reader, writer)),
            ]
            await asyncio.wait(connection.pumps)
        except OSError:
            pass  # who is not there cannot be handed anything: the caller sees a reset
        finally:
            connection.reset()
            connection.ended.set()
            self._connections.discard(connection)

    async def _pump(
        self, connection: "_Connection", name: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        passed = 0
        try:
            while True:
                octets = await source.read(_CHUNK)
                while (way := self._way(name)).held:
                    await self._changed.wait()
                    await asyncio.sleep(self._linger_s)
                if way.delay_s:
                    await asyncio.sleep(way.delay_s)
                if way.cut_after is not None and passed + len(octets) > way.cut_after:
                    sink.write(octets[: max(0, way.cut_after - passed)])
                    await sink.drain()
                    connection.reset()
                    return
                if not octets:
                    sink.write_eof()
                    return
                passed += len(octets)
                sink.write(octets)
                await sink.drain()
        except OSError:
            connection.reset()

    def _way(self, name: str) -> Way:
        way: Way = getattr(self._fault, name)
        return way


class _Connection:
    def __init__(self, writer: asyncio.StreamWriter, connecting: asyncio.Task[Any] | None) -> None:
        self.writers = [writer]
        self.connecting = connecting
        self.pumps: list[asyncio.Task[None]] = []
        self.ended = asyncio.Event()

    def reset(self) -> None:
        """What was written goes out still; then RST both ways, as from a machine that knows nothing of this."""
        for writer in self.writers:
            link: socket.socket = writer.get_extra_info("socket")
            if not writer.transport.is_closing():
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        for pump in self.pumps:
            pump.cancel()
        if not self.pumps and self.connecting is not None and self.connecting is not asyncio.current_task():
            self.connecting.cancel()


def _listen(address: str, port: int) -> socket.socket:
    return socket.create_server((address, port), backlog=128)


def _connecting(target: tuple[str, int]) -> socket.socket:
    link = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    link.setblocking(False)
    return link
