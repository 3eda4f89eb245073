"""Webhooks: how fast a backlog drains to a subscriber, and whether dead ones beside it delay it."""

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from statistics import median

from bench.figures import Figure
from bench.sink import sink
from lab.postgres import postgres
from leasehold.config import Settings
from leasehold.domain.values import Batch, WebhookSpec
from leasehold.domain.webhooks import allowed_networks
from leasehold.outbound.endpoint import Endpoint
from leasehold.service import events, webhooks
from leasehold.service.context import Context, open_context
from leasehold.worker import Worker
from leasehold.worker.courier import Courier

_TURNS = 5
_BACKLOG = 50_000
_SINGLY = 2_000
_BATCH = 1_000
_STORED_AT_ONCE = 1_000
_DEAD = 10
_TOLD_A_TURN = 40
_TELL_EVERY_S = 0.05


def delivery() -> list[Figure]:
    """The delivery stage alone, on both databases, and its latency beside dead endpoints."""
    figures = []
    for name, opened in (("SQLite", _sqlite), ("PostgreSQL", _postgresql)):
        with opened() as ctx:
            figures.append(_drained(ctx, name))
    with _sqlite() as ctx:
        figures.append(_beside_the_dead(ctx))
    return figures


def _drained(ctx: Context, database: str) -> Figure:
    batches, singly = [], []
    for turn in range(_TURNS):
        batches.append(_rate(ctx, f"batches-{turn}", _BACKLOG, Batch(events=_BATCH)))
        singly.append(_rate(ctx, f"singly-{turn}", _SINGLY, None))
    print(f"  {database}: {median(batches):,.0f}/s in batches, {median(singly):,.0f}/s one by one", flush=True)
    return Figure(
        name=f"events delivered in batches ({database})",
        how=f"{_BACKLOG:,} lease events that are stored already, in batches of {_BATCH:,}, read, signed and posted to "
        "a subscriber in another process; nothing else at the time. Theirs: one event a request, one at a time.",
        asked="≥ 30,000/s",
        is_reached=lambda _: median(batches) >= 30_000,
        ours=batches,
        theirs=singly,
        unit="/s",
    )


def _rate(ctx: Context, label: str, number: int, batch: Batch | None) -> float:
    """Events a second."""
    with sink() as (url, count):
        webhook = webhooks.create(ctx, WebhookSpec(url=url, batch=batch))
        _store(ctx, label, number)
        open_door = partial(Endpoint, timeout_s=10, allowed=allowed_networks("127.0.0.1/32"))
        courier = Courier(ctx, webhook.id, open_door)
        begun = time.perf_counter()
        while count.value < number:
            courier.turn()
        took_s = time.perf_counter() - begun
        courier.close()
        webhooks.delete_webhook(ctx, webhook.id)
    return number / took_s


def _store(ctx: Context, label: str, number: int) -> None:
    for begin in range(0, number, _STORED_AT_ONCE):
        new = [
            events.NewEvent(
                id=f"{label}/{seq}",
                type="lease.assigned",
                subject=f"subnets/7/addresses/10.{seq >> 16}.{seq >> 8 & 255}.{seq & 255}",
                time_ms=1_800_000_000_000 + seq,
                data={
                    "host": "host-a",
                    "boot": label,
                    "seq": seq,
                    "subnet": 7,
                    "network": "blue",
                    "ip": f"10.{seq >> 16}.{seq >> 8 & 255}.{seq & 255}",
                    "mac": "02:00:5e:10:00:01",
                    "vnic": "7f6d1c",
                    "vm": "web-1",
                    "lease_time_s": 3600,
                    "expires_at": "2027-01-15T09:00:00.000Z",
                },
            )
            for seq in range(begin, min(begin + _STORED_AT_ONCE, number))
        ]
        with ctx.db.write() as connection:
            events.append(connection, ctx.now_ms(), new)


def _beside_the_dead(ctx: Context) -> Figure:
    alone: list[float] = []
    beside: list[float] = []
    with ExitStack() as stack:
        dead = [
            webhooks.create(ctx, WebhookSpec(url=stack.enter_context(_KINDS[number % len(_KINDS)]()))).id
            for number in range(_DEAD)
        ]
        url, count = stack.enter_context(sink())
        webhooks.create(ctx, WebhookSpec(url=url))
        worker = Worker(ctx)
        worker.start()
        stack.callback(worker.stop)
        for turn in range(_TURNS):
            for samples, change in ((alone, webhooks.pause), (beside, webhooks.resume)):
                for webhook_id in dead:
                    change(ctx, webhook_id)
                samples.append(_latency_ms(ctx, count, f"turn-{turn}"))
    print(f"  alone {median(alone):.1f} ms, beside {_DEAD} dead {median(beside):.1f} ms", flush=True)
    return Figure(
        name=f"an event's way to a subscriber beside {_DEAD} dead ones",
        how=f"from before it is stored to when the subscriber has it, the median of {_TOLD_A_TURN} events a turn, one "
        f"every {_TELL_EVERY_S * 1000:.0f} ms. The dead ones refuse connections, do not answer, answer octet by octet, "
        "and answer 500. Theirs: the same while those are paused.",
        asked="≤ 1.25",
        is_reached=lambda ratio: ratio <= 1.25,
        ours=beside,
        theirs=alone,
        unit="ms",
    )


def _latency_ms(ctx: Context, count: "Synchronized[int]", subject: str) -> float:
    samples = []
    for _ in range(_TOLD_A_TURN):
        before = count.value
        begun = time.perf_counter()
        with ctx.db.write() as connection:
            events.emit(connection, ctx.now_ms(), "lease.assigned", subject, {})
        ctx.bell.ring()
        while count.value == before:
            time.sleep(0.0005)
        samples.append((time.perf_counter() - begun) * 1000)
        time.sleep(_TELL_EVERY_S)
    return median(samples)


@contextmanager
def _refusing() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


@contextmanager
def _serving(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with connection:
            try:
                while connection.recv(65536):
                    behave(connection)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


def _drip(connection: socket.socket) -> None:
    for octet in b"HTTP/1.1 204 No Content\r\n" + b"X-Slow: 1\r\n" * 1_000:
        connection.sendall(bytes([octet]))
        time.sleep(0.1)


_KINDS: list[Callable[[], AbstractContextManager[str]]] = [
    _refusing,
    partial(_serving, lambda _: None),
    partial(_serving, _drip),
    partial(_serving, lambda connection: connection.sendall(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n")),
]


@contextmanager
def _sqlite() -> Iterator[Context]:
    with tempfile.TemporaryDirectory() as folder, _opened(f"sqlite:///{Path(folder)}/leasehold.sqlite") as ctx:
        yield ctx


@contextmanager
def _postgresql() -> Iterator[Context]:
    with postgres(durable=True) as server, _opened(server.fresh_database()) as ctx:
        yield ctx


@contextmanager
def _opened(url: str) -> Iterator[Context]:
    ctx = open_context(Settings(database_url=url, webhook_allowed_networks="127.0.0.1/32"))
    try:
        yield ctx
    finally:
        ctx.db.dispose()
