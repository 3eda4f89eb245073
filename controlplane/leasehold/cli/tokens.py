"""`leasehold token`."""

from dataclasses import asdict
from typing import get_args

import click

from leasehold.cli.opening import open_database
from leasehold.cli.printing import Columns, as_json_option, note, print_json, print_table
from leasehold.domain.values import Role, Token
from leasehold.service import tokens

_COLUMNS: Columns[Token] = {
    "id": lambda each: each.id,
    "role": lambda each: each.role,
    "host": lambda each: each.host,
    "description": lambda each: each.description,
    "created": lambda each: each.created_at,
}


@click.group()
def token() -> None:
    """Bearer tokens for the API."""


@token.command("create")
@click.option("--role", required=True, type=click.Choice(get_args(Role)), help="What it may do.")
@click.option("--host", help="Id of the host that it speaks for; with role host only.")
@click.option("--description", default="", help="What it is for.")
@as_json_option
def create_token(role: Role, host: str | None, description: str, as_json: bool) -> None:
    """Create a token, and print its secret, which nobody can see again."""
    created, secret = tokens.create(open_database(), role, host, description)
    if as_json:
        print_json(asdict(created) | {"secret": secret})
    else:
        note(f"Token {created.id} of role {role}. Its secret is shown this once:")
        click.echo(secret)


@token.command("list")
@as_json_option
def list_tokens(as_json: bool) -> None:
    """List all tokens, without their secrets."""
    found = tokens.list_tokens(open_database())
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        print_table(_COLUMNS, found)


@token.command("delete")
@click.argument("token_id")
def delete_token(token_id: str) -> None:
    """Delete a token: from now on nobody is known by it."""
    tokens.delete_token(open_database(), token_id)
