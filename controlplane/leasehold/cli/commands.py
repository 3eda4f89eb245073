"""The commands. They talk to the database directly; only `serve` listens."""

import json
import logging
import logging.config
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, get_args

import click
from alembic.util import CommandError
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from leasehold.cli.logs import configuration
from leasehold.cli.server import Server, listen
from leasehold.config import Settings
from leasehold.domain.values import Role, Token
from leasehold.errors import (
    Conflict,
    DatabaseUnavailable,
    FieldInvalid,
    Invalid,
    LeaseholdError,
    NotFound,
    Refused,
    Unavailable,
)
from leasehold.service import hosts, networks, tokens
from leasehold.service.context import Context, open_context
from leasehold.web import create_app
from leasehold.worker import Worker

EXIT_CODES: Mapping[type[LeaseholdError], int] = {
    Invalid: 3,
    NotFound: 4,
    Conflict: 5,
    Unavailable: 6,
    Refused: 7,
    LeaseholdError: 1,
}
"""By branch; click itself ends with 2 for wrong usage."""

_log = logging.getLogger(__name__)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def exit_code(kind: type[LeaseholdError]) -> int:
    """How the command ends for an error class: its branch's number."""
    return next(EXIT_CODES[base] for base in kind.__mro__ if base in EXIT_CODES)


class _Group(click.Group):
    """Ends with the error's sentence on stderr, and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LeaseholdError as error:
            click.echo(f"Error ({type(error).code}): {error}", err=True)
            ctx.exit(exit_code(type(error)))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="leasehold")
def main() -> None:
    """MAC and IP addresses for virtual machines, served by Kea exactly as promised.

    Settings come from the environment: LEASEHOLD_DATABASE_URL and others; see controlplane/README.md.
    """


@main.command()
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
    ctx = _open(settings)
    app = create_app(ctx)
    ctx.db.dispose()  # connections must not cross the fork; the serving process opens its own
    _log.info("Serving.", extra={"facts": {"addresses": [_url(each) for each in sockets]}})
    Server(app, sockets, lambda: Worker(ctx), longest_request_s=settings.start_budget_s, log_config=logs).run()


@main.group()
def token() -> None:
    """Bearer tokens for the API."""


@token.command("create")
@click.option("--role", required=True, type=click.Choice(get_args(Role)), help="What it may do.")
@click.option("--host", help="Id of the host that it speaks for; with role host only.")
@click.option("--description", default="", help="What it is for.")
@_as_json
def create_token(role: Role, host: str | None, description: str, as_json: bool) -> None:
    """Create a token, and print its secret, which nobody can see again."""
    created, secret = tokens.create(_open(), role, host, description)
    if as_json:
        _print_json(asdict(created) | {"secret": secret})
    else:
        click.echo(f"Token {created.id} of role {role}. Its secret is shown this once:", err=True)
        click.echo(secret)


@token.command("list")
@_as_json
def list_tokens(as_json: bool) -> None:
    """List all tokens, without their secrets."""
    found = tokens.list_tokens(_open())
    if as_json:
        _print_json([asdict(each) for each in found])
        return
    columns: dict[str, Callable[[Token], object]] = {
        "id": lambda each: each.id,
        "role": lambda each: each.role,
        "host": lambda each: each.host or "",
        "description": lambda each: each.description,
        "created": lambda each: each.created_at.isoformat(timespec="seconds"),
    }
    _print_table(list(columns), [[value(each) for value in columns.values()] for each in found])


@token.command("delete")
@click.argument("token_id")
def delete_token(token_id: str) -> None:
    """Delete a token: from now on nobody is known by it."""
    tokens.delete_token(_open(), token_id)


@main.group()
def db() -> None:
    """The database."""


@db.command("upgrade")
def upgrade() -> None:
    """Bring the database to this release's schema; make it first where there is none."""
    ctx = _open()
    url = make_url(ctx.settings.database_url).render_as_string(hide_password=True)
    click.echo(f"{url} has this release's schema.", err=True)


@main.command()
@_as_json
def status(as_json: bool) -> None:
    """Show which host serves which network, and which do not answer."""
    ctx = _open()
    known = hosts.list_hosts(ctx)
    servers = [server for each in networks.list_networks(ctx) for server in networks.list_servers(ctx, each.id)]
    serves = {each.id: [server for server in servers if server.host == each.id] for each in known}
    if as_json:
        _print_json(
            [
                {
                    "host": each.id,
                    "answered_at": each.answered_at,
                    "unreachable_reason": each.unreachable_reason,
                    "networks": {server.network: server.state for server in serves[each.id]},
                }
                for each in known
            ]
        )
        return
    _print_table(
        ["host", "answered", "unreachable", "networks"],
        [
            [
                each.id,
                "never" if each.answered_at is None else each.answered_at.isoformat(timespec="seconds"),
                each.unreachable_reason or "",
                ", ".join(f"{server.network} ({server.state})" for server in serves[each.id]),
            ]
            for each in known
        ],
    )


def _open(settings: Settings | None = None) -> Context:
    settings = settings or Settings.from_environment(os.environ)
    try:
        return open_context(settings)
    except (ArgumentError, NoSuchModuleError) as error:
        raise FieldInvalid(
            "LEASEHOLD_DATABASE_URL is no database URL that is known here. "
            "Write sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME.",
            field="LEASEHOLD_DATABASE_URL",
        ) from error
    except (DBAPIError, CommandError) as error:
        url = make_url(settings.database_url).render_as_string(hide_password=True)
        why = error.orig if isinstance(error, DBAPIError) else error
        raise DatabaseUnavailable(f"The database {url} cannot be used: {why}.") from error


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


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, default=lambda each: each.isoformat(), indent=2))


def _print_table(columns: list[str], rows: list[list[Any]]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)
