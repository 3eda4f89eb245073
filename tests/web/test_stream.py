"""The stream of events: what comes, from where, and that it takes no more than its part of the server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytest
from werkzeug.test import TestResponse

from leasehold.service import events
from leasehold.service.context import Context
from leasehold.web.events import IS_ENDING, MAX_STREAMS
from web.conftest import Api


def happen(ctx: Context, *subjects: str, kind: str = "lease.assigned") -> None:
    for subject in subjects:
        with ctx.db.write() as connection:
            events.emit(connection, ctx.now_ms(), kind, subject, {"of": subject})
    ctx.bell.ring()


def open_stream(api: Api, query: str = "", **headers: str) -> TestResponse:
    return api.client.get(
        f"/v1/events/stream?{query}", headers={"Authorization": f"Bearer {api.secret}"} | headers, buffered=False
    )


@contextmanager
def streaming(api: Api, query: str = "", **headers: str) -> Iterator[Iterator[dict[str, str]]]:
    """The messages of a stream, as the fields that they have."""
    response = open_stream(api, query, **headers)
    assert (response.status_code, response.mimetype) == (200, "text/event-stream")
    try:
        yield messages(response)
    finally:
        response.close()


def messages(response: TestResponse) -> Iterator[dict[str, str]]:
    for part in response.response:
        text = part.decode() if isinstance(part, bytes) else part
        for message in filter(None, text.split("\n\n")):
            yield dict(line.split(": ", 1) for line in message.splitlines() if not line.startswith(":"))


def subjects(found: Iterator[dict[str, str]], count: int) -> list[str]:
    return [data(each)["subject"] for each in islice((each for each in found if "data" in each), count)]


def data(message: dict[str, str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(message["data"])
    return value


def test_events_come_as_they_happen(ctx: Context, api: Api) -> None:
    happen(ctx, "before")
    with streaming(api) as stream:
        next(stream)
        later = threading.Timer(0.1, happen, (ctx, "first", "second"))
        later.start()
        assert subjects(stream, 2) == ["first", "second"]
        later.join()


def test_a_message_is_the_event_as_the_list_has_it(ctx: Context, api: Api) -> None:
    happen(ctx, "hosts/host-a")
    (listed,) = api.get("/v1/events").get_json()["items"]
    with streaming(api, "after=0") as stream:
        message = next(each for each in stream if "data" in each)
    assert (message["id"], message["event"]) == (str(listed["position"]), "lease.assigned")
    assert data(message) == listed


def test_an_interrupted_stream_goes_on_behind_the_last_id(ctx: Context, api: Api) -> None:
    happen(ctx, "a", "b", "c")
    with streaming(api, "after=0", **{"Last-Event-ID": "2"}) as stream:
        assert subjects(stream, 1) == ["c"]


def test_a_stream_has_only_what_its_filter_lets_through(ctx: Context, api: Api) -> None:
    happen(ctx, "subnets/1/a", "subnets/2/a")
    happen(ctx, "subnets/1/b", kind="lease.expired")
    with streaming(api, "after=0&type=lease.assigned&subject_prefix=subnets/1/") as stream:
        assert subjects(stream, 1) == ["subnets/1/a"]
        assert next(stream) == {"id": "3"}  # how far it looked in vain


def test_a_stream_ends_when_its_time_is_over(api: Api) -> None:
    with streaming(api, "seconds=1") as stream:
        assert all("data" not in each for each in stream)


def test_a_stream_ends_when_the_server_does(ctx: Context, api: Api) -> None:
    api.app.config[IS_ENDING] = lambda: True
    with streaming(api) as stream:
        assert all("data" not in each for each in stream)


def test_no_more_streams_than_the_server_carries(api: Api) -> None:
    open_ones = [open_stream(api) for _ in range(MAX_STREAMS)]
    refused = open_stream(api)
    assert (refused.status_code, refused.get_json()["code"]) == (503, "too-many-streams")
    open_ones.pop().close()
    with streaming(api, "seconds=1"):
        pass
    for each in open_ones:
        each.close()


@pytest.mark.parametrize("text", ["", "-1", "x", "1.0", "9" * 30])
def test_a_bad_last_id_is_refused(api: Api, text: str) -> None:
    answer = open_stream(api, **{"Last-Event-ID": text})
    assert (answer.status_code, answer.get_json()["field"]) == (400, "Last-Event-ID")


def test_events_are_filtered_by_instant(ctx: Context, api: Api) -> None:
    happen(ctx, "a")
    at = api.get("/v1/events").get_json()["items"][0]["time"]
    assert len(api.get("/v1/events", since=at).get_json()["items"]) == 1
    assert api.get("/v1/events", until=at).get_json()["items"] == []


def test_a_prefix_knows_upper_and_lower_case(ctx: Context, api: Api) -> None:
    happen(ctx, "hosts/A", "hosts/a", "hosts/a_b", "hosts/aXb")
    found = api.get("/v1/events", subject_prefix="hosts/a").get_json()["items"]
    assert [each["subject"] for each in found] == ["hosts/a", "hosts/a_b", "hosts/aXb"]
    assert len(api.get("/v1/events", subject_prefix="hosts/a_").get_json()["items"]) == 1
