"""Bearer tokens: who may call, and what. Of a secret only its SHA-256 is kept, and no answer shows it again."""

import hashlib
import hmac
import secrets
import uuid
from typing import Any

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.sql.base import Executable

from leasehold.domain.values import Role, Token
from leasehold.errors import FieldInvalid, TokenNotFound, Unauthenticated
from leasehold.service.context import Context, from_ms
from leasehold.store.prepared import prepared
from leasehold.store.tables import tokens

_PREFIX = "lh_"  # so that scanners for leaked secrets can know one
_SECRET_OCTETS = 32


def create(ctx: Context, role: Role, host: str | None = None, description: str = "") -> tuple[Token, str]:
    """A new token, and its secret, which nobody can see again.

    A token of role `host` names the one host that it speaks for, which need not be known yet. Raises FieldInvalid when
    it names none, or when another role names one.
    """
    if (role == "host") is not (host is not None):
        rule = "needs the id of the host that it speaks for" if role == "host" else "speaks for no host: leave it out"
        raise FieldInvalid(f"host: a token of role {role} {rule}.", field="host", value=host)
    secret = _PREFIX + secrets.token_urlsafe(_SECRET_OCTETS)
    now_ms = ctx.now_ms()
    token = Token(id=str(uuid.uuid4()), role=role, host=host, description=description, created_at=from_ms(now_ms))
    with ctx.db.write() as connection:
        connection.execute(
            insert(tokens).values(
                id=token.id,
                role=role,
                host_id=host,
                description=description,
                digest=_digest(secret),
                created_ms=now_ms,
            )
        )
    return token, secret


def list_tokens(ctx: Context) -> list[Token]:
    """All, by id."""
    with ctx.db.read() as connection:
        return [_token(row) for row in connection.execute(select(tokens).order_by(tokens.c.id))]


def get(ctx: Context, token_id: str) -> Token:
    """Raises TokenNotFound."""
    with ctx.db.read() as connection:
        row = connection.execute(select(tokens).where(tokens.c.id == token_id)).one_or_none()
    if row is None:
        raise _missing(token_id)
    return _token(row)


def delete_token(ctx: Context, token_id: str) -> None:
    """From the commit on, nobody is known by it. Raises TokenNotFound."""
    with ctx.db.write() as connection:
        if not connection.execute(delete(tokens).where(tokens.c.id == token_id)).rowcount:
            raise TokenNotFound(f"There is no token {token_id!r}. GET /v1/tokens lists those that are.", token=token_id)


def authenticate(ctx: Context, secret: str) -> Token:
    """The token with this secret; raises Unauthenticated."""
    digest = _digest(secret)
    with ctx.db.look() as connection:
        row = _by_digest(connection, digest=digest).one_or_none()
    # The index compares digests, whose timing tells nothing of a secret; what decides takes the same time always.
    if row is None or not hmac.compare_digest(row.digest, digest):
        raise Unauthenticated(
            "The bearer token is not known here: it was mistyped, deleted, or made for another installation. "
            "Make one with `leasehold token create`."
        )
    return _token(row)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _missing(token_id: str) -> TokenNotFound:
    return TokenNotFound(f"There is no token {token_id!r}. GET /v1/tokens lists those that are.", token=token_id)


def _token(row: Row[Any]) -> Token:
    return Token(
        id=row.id, role=row.role, host=row.host_id, description=row.description, created_at=from_ms(row.created_ms)
    )


@prepared
def _by_digest(digest: Any) -> Executable:
    return select(tokens).where(tokens.c.digest == digest)
