"""Requests that are made once, however often they are sent: an answer is kept under the key that the caller chose."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import delete, insert, select, update

from leasehold.errors import IdempotencyKeyReused
from leasehold.service.context import Context
from leasehold.store.database import Violation
from leasehold.store.tables import kept_answers


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """An answer as it went out."""

    status: int
    headers: dict[str, str]
    content: str


def once(
    ctx: Context, token_id: str, key: str, digest: bytes, act: Callable[[Context], KeptAnswer]
) -> tuple[KeptAnswer, bool]:
    """The answer of `act`, which is called unless one is kept under the caller's key; the second value is True for a
    kept one.

    What `act` changes, through the context that it is given, and its answer are one transaction: a crash leaves both or
    neither, and a repetition that comes meanwhile waits for it. When `act` raises, nothing is kept. `digest` is the
    request's; raises IdempotencyKeyReused when the key came with another one, in the last `idempotency_key_s`.
    """
    try:
        return _once(ctx, token_id, key, digest, act)
    except Violation as violation:
        if violation.constraint != "pk_kept_answers":
            raise
        # Another call with this key was at work, and we waited for its end.
        return _once(ctx, token_id, key, digest, act)


def _once(
    ctx: Context, token_id: str, key: str, digest: bytes, act: Callable[[Context], KeptAnswer]
) -> tuple[KeptAnswer, bool]:
    own = (kept_answers.c.token_id == token_id) & (kept_answers.c.key == key)
    now_ms = ctx.now_ms()
    with ctx.db.write() as connection:
        kept = connection.execute(select(kept_answers).where(own, kept_answers.c.expires_ms > now_ms)).one_or_none()
        if kept is not None:
            if kept.digest != digest:
                raise IdempotencyKeyReused(
                    f"Idempotency-Key {key!r} came with another request before. Use a new key for each request, and "
                    "the same one only to repeat it.",
                    key=key,
                )
            return KeptAnswer(status=kept.status, headers=kept.headers, content=kept.content), True
        connection.execute(delete(kept_answers).where(kept_answers.c.expires_ms <= now_ms))
        expires_ms = now_ms + round(ctx.settings.idempotency_key_s * 1000)
        connection.execute(
            insert(kept_answers).values(
                token_id=token_id, key=key, digest=digest, status=0, headers={}, content="", expires_ms=expires_ms
            )
        )
        answer = act(replace(ctx, db=ctx.db.joined(connection)))
        connection.execute(
            update(kept_answers).where(own).values(status=answer.status, headers=answer.headers, content=answer.content)
        )
    # Whoever was woken before the commit saw nothing new.
    ctx.bell.ring()
    return answer, False
