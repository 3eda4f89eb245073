"""`Idempotency-Key`: a request that is sent again is answered again, and done once."""

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection
from werkzeug.test import TestResponse

from lab.postgres import Postgres
from leasehold.config import Settings
from leasehold.domain.addresses import Mac, MacRange
from leasehold.service import mac_pools, repeats, tokens
from leasehold.service.context import Context, open_context, utc_now
from leasehold.store.database import at_end
from leasehold.web import create_app
from web.conftest import Api, Clients

POOL = {"name": "blue", "ranges": [{"from": "02:00:00:00:00:00", "to": "02:00:00:00:00:ff"}]}
HOOK = {"url": "http://192.0.2.1/"}
BULK = {"vnics": [{"id": "v1", "vm": "vm1", "name": "nic1"}]}


def post(api: Api, path: str, body: dict[str, Any], key: str | None = "k1", **query: str) -> TestResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.call("POST", path, json=body, headers=headers, query_string=query)


@pytest.mark.parametrize(("path", "body"), [("mac-pools", POOL), ("webhooks", HOOK), ("vnics/bulk", BULK)])
def test_a_repetition_gets_the_same_answer(api: Api, path: str, body: dict[str, Any]) -> None:
    first, second = (post(api, f"/v1/{path}", body) for _ in range(2))
    assert first.status_code in (200, 201)
    assert (second.status_code, second.data) == (first.status_code, first.data)
    assert [each.headers.get("Idempotency-Replayed") for each in (first, second)] == [None, "true"]
    for name in ("Location", "ETag", "Content-Type"):
        assert first.headers.get(name) == second.headers.get(name)


def test_a_repetition_does_nothing(api: Api, ctx: Context) -> None:
    ids = {post(api, "/v1/webhooks", HOOK).get_json()["id"] for _ in range(3)}
    assert len(ids) == 1
    assert len(api.get("/v1/webhooks").get_json()["items"]) == 1
    assert post(api, "/v1/webhooks", HOOK, None).get_json()["id"] not in ids
    assert post(api, "/v1/webhooks", HOOK, "k2").get_json()["id"] not in ids


def test_what_was_created_may_be_gone_and_the_answer_stays(api: Api) -> None:
    made = post(api, "/v1/mac-pools", POOL).get_json()
    api.delete(f"/v1/mac-pools/{made['id']}")
    assert post(api, "/v1/mac-pools", POOL).get_json() == made
    assert api.get(f"/v1/mac-pools/{made['id']}").status_code == 404


def test_blanks_make_no_other_request(api: Api) -> None:
    headers = {"Idempotency-Key": "k1", "Content-Type": "application/json"}
    for text in ('{"url": "http://192.0.2.1/"}', '{"url":"http://192.0.2.1/" }'):
        assert api.call("POST", "/v1/webhooks", data=text, headers=headers).status_code == 201
    assert len(api.get("/v1/webhooks").get_json()["items"]) == 1


def test_a_key_with_another_request_is_refused(api: Api) -> None:
    post(api, "/v1/webhooks", HOOK)
    for path, body in (("webhooks", {"url": "http://192.0.2.2/"}), ("mac-pools", POOL)):
        refused = post(api, f"/v1/{path}", body)
        assert (refused.status_code, refused.get_json()["code"]) == (409, "idempotency-key-reused")
    assert len(api.get("/v1/webhooks").get_json()["items"]) == 1


def test_a_refused_request_keeps_its_key_free(api: Api) -> None:
    assert post(api, "/v1/mac-pools", POOL | {"ranges": []}).status_code == 400
    taken = POOL | {"name": "Default"}
    assert post(api, "/v1/mac-pools", taken).get_json()["code"] == "name-taken"
    assert post(api, "/v1/mac-pools", POOL).status_code == 201


def test_a_dry_run_uses_no_key_up(api: Api) -> None:
    assert post(api, "/v1/mac-pools", POOL, dry_run="true").status_code == 200
    assert post(api, "/v1/mac-pools", POOL).status_code == 201


def test_keys_are_a_tokens_own(clients: Clients) -> None:
    first, second = (post(clients("engine"), "/v1/webhooks", HOOK).get_json()["id"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "ü"])
def test_what_is_no_key_is_told(api: Api, key: str) -> None:
    refused = post(api, "/v1/webhooks", HOOK, key)
    assert (refused.status_code, refused.get_json()["field"]) == (400, "Idempotency-Key")


def test_an_answer_is_kept_for_its_time(ctx: Context) -> None:
    now = utc_now()
    later = Context(ctx.db, ctx.settings, lambda: now + timedelta(seconds=ctx.settings.idempotency_key_s))
    done: list[int] = []

    def act(_: Context) -> repeats.KeptAnswer:
        done.append(1)
        return repeats.KeptAnswer(status=200, headers={}, content=str(len(done)))

    at_first = Context(ctx.db, ctx.settings, lambda: now)
    assert [repeats.once(each, "t", "k", b"d", act)[0].content for each in (at_first, at_first, later)] == [
        "1",
        "1",
        "2",
    ]


def test_a_crash_before_the_end_leaves_neither_change_nor_answer(ctx: Context) -> None:
    def crash(inside: Context) -> repeats.KeptAnswer:
        mac_pools.create(inside, name="lost", ranges=[MacRange(Mac(0x020000000000), Mac(0x0200000000FF))])
        assert len(mac_pools.list_pools(inside)) == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repeats.once(ctx, "t", "k", b"d", crash)
    answer = repeats.KeptAnswer(status=200, headers={}, content="again")
    assert repeats.once(ctx, "t", "k", b"d", lambda _: answer) == (answer, False)
    assert len(mac_pools.list_pools(ctx)) == 1


def test_what_a_part_undoes_is_not_finished_at_the_end(ctx: Context) -> None:
    done: list[str] = []

    def finish(_: Connection, items: list[Any]) -> None:
        done.extend(items)

    with ctx.db.write() as connection:
        inside = ctx.db.joined(connection)
        with inside.write() as part:
            at_end(part, finish, "kept")
        with inside.write(dry_run=True) as part:
            at_end(part, finish, "tried")
        with contextlib.suppress(ValueError), inside.write() as part:
            at_end(part, finish, "failed")
            raise ValueError
    assert done == ["kept"]


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flask]:
    """The API over a database of each kind, in turn."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/shared.sqlite"
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.fresh_database()
    ctx = open_context(Settings(database_url=url))
    app = create_app(ctx)
    app.config["secret"] = tokens.create(ctx, "engine")[1]
    yield app
    ctx.db.dispose()


def test_many_at_once_are_done_once(shared: Flask) -> None:
    count = 8
    gate = threading.Barrier(count)
    answers: list[TestResponse] = []
    headers = {"Authorization": f"Bearer {shared.config['secret']}", "Idempotency-Key": "k1"}

    def call() -> None:
        client = shared.test_client()
        gate.wait()
        answers.append(client.post("/v1/webhooks", json=HOOK, headers=headers))

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.status_code for each in answers] == [201] * count
    assert len({each.data for each in answers}) == 1
    assert sum("Idempotency-Replayed" in each.headers for each in answers) == count - 1
    listed = shared.test_client().get("/v1/webhooks", headers=headers).get_json()["items"]
    assert len(listed) == 1
