"""`leasehold serve`, and over PostgreSQL its two halves, `leasehold api` and `leasehold worker`."""

import logging
import logging.config
import os
import signal
import socket
import threading
from collections.abc import Callable

import click
from werkzeug.serving import make_server

from leasehold.cli.logs import configuration
from leasehold.cli.opening import open_database
from leasehold.cli.server import Loops, Server, listen
from leasehold.config import Settings
from leasehold.service.context import Context
from leasehold.web import create_app, create_watch_app
from leasehold.worker import Worker

_log = logging.getLogger(__name__)

_bind = click.option(
    "--bind",
    "binds",
    multiple=True,
    default=("127.0.0.1:8080",),
    show_default=True,
    metavar="HOST:PORT|fd://N",
    help="Where to listen; may be repeated. fd://N is a socket that the parent process opened.",
)


@click.command()
@_bind
def serve(binds: tuple[str, ...]) -> None:
    """Run the API and the worker, until SIGTERM."""
    _serve(binds, Worker)


@click.command()
@_bind
def api(binds: tuple[str, ...]) -> None:
    """Run the API alone, until SIGTERM.

    Any number of them can run over PostgreSQL, beside `leasehold worker`; on one machine also at the same address.
    """
    _serve(binds, lambda ctx: ctx.bell, apart="api")


@click.command()
@click.option("--bind", metavar="HOST:PORT", help="Where to answer /healthz, /readyz and /metrics; without, nowhere.")
def worker(bind: str | None) -> None:
    """Run the worker alone, until SIGTERM. Any number of them can run over PostgreSQL, and share out the work."""
    settings, _ = _configured()
    ctx = _opened(settings, "worker")
    addresses = []
    if bind is not None:
        watched = _listen(bind, shared=False)
        addresses.append(_url(watched))
        server = make_server("", 0, create_watch_app(ctx), threaded=True, fd=watched.detach())
        threading.Thread(target=server.serve_forever, name="watch", daemon=True).start()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    loops = Worker(ctx)
    loops.start()
    _log.info("Working.", extra={"facts": {"addresses": addresses}})
    stopping.wait()
    loops.stop()


def _serve(binds: tuple[str, ...], make_loops: Callable[[Context], Loops], apart: str | None = None) -> None:
    settings, logs = _configured()
    sockets = [_listen(bind, shared=apart is not None) for bind in binds]
    ctx = _opened(settings, apart)
    app = create_app(ctx)
    ctx.db.dispose()  # connections must not cross the fork; the serving process opens its own
    _log.info("Serving.", extra={"facts": {"addresses": [_url(each) for each in sockets]}})
    Server(app, sockets, lambda: make_loops(ctx), longest_request_s=settings.start_budget_s, log_config=logs).run()


def _configured() -> tuple[Settings, dict[str, object]]:
    settings = Settings.from_environment(os.environ)
    logs = configuration(settings.log_level)
    logging.config.dictConfig(logs)
    return settings, logs


def _opened(settings: Settings, apart: str | None) -> Context:
    """The database; for one half of the control plane only where the other can hear of changes."""
    ctx = open_database(settings)
    if apart is not None and ctx.db.is_sqlite:
        raise click.UsageError(
            f"`leasehold {apart}` needs PostgreSQL, and LEASEHOLD_DATABASE_URL is SQLite's. "
            "Use `leasehold serve`, which is API and worker in one, or set it to postgresql+psycopg://USER@HOST/NAME."
        )
    return ctx


def _listen(bind: str, *, shared: bool) -> socket.socket:
    try:
        return listen(bind, shared=shared)
    except ValueError as error:
        raise click.BadParameter(f"{bind!r}: {error}.", param_hint="--bind") from error
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {bind}: {error.strerror or error}.") from error


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"
