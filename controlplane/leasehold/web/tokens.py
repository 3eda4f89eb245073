"""`/v1/tokens`."""

from datetime import datetime

from leasehold.domain.values import Role, Token
from leasehold.errors import TokenNotFound
from leasehold.service import tokens
from leasehold.service.context import Context
from leasehold.web.api import ADMIN, Reply, Routes
from leasehold.web.wire import Id, In, Listing, Out, Page, PageOut, PageQuery, Text, id_key

routes = Routes("tokens")
_tokens = Listing[Token, str]("tokens", lambda each: each.id, id_key)


class TokenIn(In):
    """`host` is for a token of role `host`, and for no other."""

    role: Role
    host: Id | None = None
    description: Text = ""


class TokenOut(Out):
    """A bearer token, without its secret."""

    id: str
    role: Role
    host: str | None
    description: str
    created_at: datetime


class TokenPage(PageOut[TokenOut]):
    """Part of the list of tokens."""


class TokenCreated(TokenOut):
    """A bearer token, with its secret, which is shown this once."""

    secret: str


@routes.on("POST", "/tokens", roles=ADMIN, answer=TokenCreated, statuses=(201,))
def create_token(ctx: Context, body: TokenIn) -> Reply[TokenCreated]:
    """Creates a bearer token. Its secret is in this answer, and in no other."""
    token, secret = tokens.create(ctx, body.role, body.host, body.description)
    shown = TokenCreated(**TokenOut.model_validate(token).model_dump(), secret=secret)
    return Reply(shown, 201, f"/v1/tokens/{token.id}")


@routes.on("GET", "/tokens", roles=ADMIN, answer=TokenPage)
def list_tokens(ctx: Context, query: PageQuery) -> Page[Token]:
    """Every token, by id."""
    return _tokens.page_of(query, tokens.list_tokens(ctx))


@routes.on("GET", "/tokens/<token_id>", roles=ADMIN, answer=TokenOut, errors=[TokenNotFound])
def get_token(ctx: Context, token_id: Id) -> Token:
    """One token."""
    return tokens.get(ctx, token_id)


@routes.on("DELETE", "/tokens/<token_id>", roles=ADMIN, errors=[TokenNotFound])
def delete_token(ctx: Context, token_id: Id) -> None:
    """Deletes a token: from now on nobody is known by it."""
    tokens.delete_token(ctx, token_id)
