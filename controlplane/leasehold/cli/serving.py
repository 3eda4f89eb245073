"""`leasehold serve`."""

import logging
import logging.config
import os
import socket

import click

from leasehold.cli.logs import configuration
from leasehold.cli.opening import open_database
from leasehold.cli.server import Server, listen
from leasehold.config import Settings
from leasehold.web import create_app
from leasehold.worker import Worker

_log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--bind",
    "binds",
    multiple=True,
    default=("127.0.0.1:8080",),
    show_default=True,
    metavar="HOST:PORT|fd://N",
    help="Where to listen; may be repeated. fd://N is a socket that the parent process opened.",
)
def serve(binds: tuple[str, ...]) -> None:
    """Run the API and the worker, until SIGTERM."""
    settings = Settings.from_environment(os.environ)
    logs = configuration(settings.log_level)
    logging.config.dictConfig(logs)
    sockets = [_listen(bind) for bind in binds]
    ctx = open_database(settings)
    app = create_app(ctx)
    ctx.db.dispose()  # connections must not cross the fork; the serving process opens its own
    _log.info("Serving.", extra={"facts": {"addresses": [_url(each) for each in sockets]}})
    Server(app, sockets, lambda: Worker(ctx), longest_request_s=settings.start_budget_s, log_config=logs).run()


def _listen(bind: str) -> socket.socket:
    try:
        return listen(bind)
    except ValueError as error:
        raise click.BadParameter(f"{bind!r}: {error}.", param_hint="--bind") from error
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {bind}: {error.strerror or error}.") from error


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"
