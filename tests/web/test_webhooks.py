"""`/v1/webhooks`."""

from typing import Any

import pytest

from leasehold.service import deliveries, events
from leasehold.service.context import Context
from web.conftest import Api, Clients

URL = "https://monitoring.example/leasehold"


@pytest.fixture
def webhook(api: Api) -> dict[str, Any]:
    answer = api.post("/v1/webhooks", url=URL)
    assert answer.status_code == 201
    made: dict[str, Any] = answer.get_json()
    assert answer.headers["Location"] == f"/v1/webhooks/{made['id']}"
    return made


def tell(ctx: Context, number: int) -> None:
    with ctx.db.write() as connection:
        for _ in range(number):
            events.emit(connection, ctx.now_ms(), "lease.assigned", "subnets/7/addresses/192.0.2.1", {})


def test_the_secret_is_in_the_first_answer_and_in_no_other(api: Api, webhook: dict[str, Any]) -> None:
    secret = webhook.pop("secret")
    path = f"/v1/webhooks/{webhook['id']}"
    for answer in (api.get(path), api.get("/v1/webhooks"), api.patch(path, description="x"), api.post(f"{path}/pause")):
        assert answer.status_code == 200
        assert secret not in answer.text
    assert api.get("/v1/webhooks").get_json()["items"][0]["id"] == webhook["id"]


def test_it_has_what_was_asked_for(api: Api) -> None:
    asked = {
        "url": URL,
        "description": "the pager",
        "types": ["lease.*", "subnet.low"],
        "subjects": ["subnets/7/*"],
        "networks": ["blue"],
        "subnets": [7],
        "batch": {"events": 500, "octets": 100_000},
        "concurrency": 4,
    }
    made = api.post("/v1/webhooks", **asked).get_json()
    assert {name: made[name] for name in asked} == asked
    assert made["state"] == "active"


def test_a_patch_changes_what_it_names(api: Api, webhook: dict[str, Any]) -> None:
    path = f"/v1/webhooks/{webhook['id']}"
    changed = api.patch(path, batch={"events": 10}, types=["lease.*"]).get_json()
    assert (changed["batch"], changed["types"], changed["url"]) == ({"events": 10, "octets": 2**20}, ["lease.*"], URL)
    assert api.patch(path, concurrency=2).get_json()["batch"] is not None
    assert api.patch(path, batch=None).get_json()["batch"] is None
    assert api.patch(path, types=[]).get_json()["types"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "ftp://x/"}, "url"),
        ({"url": URL, "types": ["lease.asigned"]}, "types"),
        ({"url": URL, "types": ["*.assigned"]}, "types.0"),
        ({"url": URL, "subjects": ["a b"]}, "subjects.0"),
        ({"url": URL, "subnets": ["7"]}, "subnets.0"),
        ({"url": URL, "batch": {"events": 0}}, "batch.events"),
        ({"url": URL, "batch": {"octets": 2**40}}, "batch.octets"),
        ({"url": URL, "concurrency": 17}, "concurrency"),
        ({"url": URL, "secret": "whsec_mine"}, "secret"),
    ],
)
def test_what_does_not_fit_is_named(api: Api, body: dict[str, Any], field: str) -> None:
    answer = api.post("/v1/webhooks", **body)
    assert (answer.status_code, answer.get_json()["field"]) == (400, field)
    assert api.get("/v1/webhooks").get_json()["items"] == []


@pytest.mark.parametrize("word", ["pause", "resume", "rotate", "replay"])
def test_a_dry_run_answers_and_changes_nothing(api: Api, webhook: dict[str, Any], word: str) -> None:
    path = f"/v1/webhooks/{webhook['id']}"
    before = api.get(path).get_json()
    answer = api.call(
        "POST", f"{path}/{word}", query_string={"dry_run": "true"}, json={"dead": True} if word == "replay" else {}
    )
    assert answer.status_code == 200
    assert api.get(path).get_json() == before


def test_a_dry_run_of_a_new_one_makes_none(api: Api) -> None:
    answer = api.call("POST", "/v1/webhooks", query_string={"dry_run": "true"}, json={"url": URL})
    assert answer.status_code == 200
    assert api.get("/v1/webhooks").get_json()["items"] == []


def test_a_rotation_answers_the_new_secret_and_how_long_the_old_one_signs(api: Api, webhook: dict[str, Any]) -> None:
    rotated = api.post(f"/v1/webhooks/{webhook['id']}/rotate", overlap_s=60).get_json()
    assert rotated["secret"] != webhook["secret"]
    assert rotated["old_secret_until"] is not None
    assert api.post(f"/v1/webhooks/{webhook['id']}/rotate", overlap_s=0).get_json()["old_secret_until"] is None


def test_a_test_answers_what_came_of_it(api: Api) -> None:
    made = api.post("/v1/webhooks", url="http://127.0.0.1:9/").get_json()
    answer = api.post(f"/v1/webhooks/{made['id']}/test").get_json()
    assert (answer["delivered"], answer["status"]) == (False, None)
    assert "must not be sent to" in answer["error"]


def test_a_replay_says_how_many_and_needs_a_condition(api: Api, ctx: Context, webhook: dict[str, Any]) -> None:
    path = f"/v1/webhooks/{webhook['id']}"
    tell(ctx, 3)
    deliveries.record(ctx, webhook["id"], 3)
    assert api.post(f"{path}/replay", after_position=1).get_json() == {"events": 2, "more_after": None}
    assert api.get(path).get_json()["progress"]["waiting"] == 2
    answer = api.post(f"{path}/replay", since="2001-01-01T00:00:00Z", until="2001-01-02T00:00:00+01:00")
    assert answer.get_json()["events"] == 0
    for body in ({}, {"since": "yesterday"}, {"since": "2001-01-01T00:00:00"}, {"ids": [""]}):
        assert api.post(f"{path}/replay", **body).status_code == 400


def test_deliveries_and_attempts_page_by_cursor(api: Api, ctx: Context, webhook: dict[str, Any]) -> None:
    tell(ctx, 5)
    tries = [deliveries.Try(0, 1, 1, number, number, 500, "no") for number in range(1, 6)]
    deliveries.record(ctx, webhook["id"], 5, tries=tries)
    for name in ("deliveries", "attempts"):
        path, seen, cursor = f"/v1/webhooks/{webhook['id']}/{name}", [], None
        while True:
            page = api.get(path, limit=2, **({} if cursor is None else {"cursor": cursor})).get_json()
            seen += [each["id"] if name == "attempts" else each["event"]["position"] for each in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert seen == [5, 4, 3, 2, 1]
    path = f"/v1/webhooks/{webhook['id']}/deliveries"
    assert api.get(path, state="waiting").get_json()["items"] == []
    assert len(api.get(path, state="delivered").get_json()["items"]) == 5
    assert api.get(path, state="lost").status_code == 400


def test_readers_see_and_change_nothing(clients: Clients, webhook: dict[str, Any]) -> None:
    reader = clients("read")
    path = f"/v1/webhooks/{webhook['id']}"
    for seen in (path, f"{path}/deliveries", f"{path}/attempts", "/v1/webhooks"):
        assert reader.get(seen).status_code == 200
    for word in ("pause", "resume", "rotate", "test", "replay"):
        assert reader.post(f"{path}/{word}").status_code == 403
    assert reader.patch(path, description="x").status_code == 403
    assert reader.delete(path).status_code == 403


@pytest.mark.parametrize("word", ["pause", "resume", "rotate", "test", "replay"])
def test_an_unknown_one_is_not_found(api: Api, word: str) -> None:
    body = {"dead": True} if word == "replay" else {}
    assert api.post(f"/v1/webhooks/nobody/{word}", **body).get_json()["code"] == "webhook-not-found"
