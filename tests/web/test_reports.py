"""What hooks report: lines of JSON, plain or gzip'd, all of them stored or none."""

import gzip
import json
import zlib
from typing import Any

import pytest
from werkzeug.test import TestResponse

from leasehold.domain.event_types import EVENT_TYPES
from leasehold.domain.lease_events import GAP, LEASE_TYPES, REJECTED
from leasehold.store.tables import FIRST_SUBNET_ID
from leasehold.web.bodies import MAX_LINES
from web.conftest import Api, Clients

BOOT = "4b9c1e6a-7f0d-4c1b-9a55-2f6f0c7f2f11"
PATH = f"/v1/hosts/host-a/events?boot={BOOT}&boot_order=1"
LIMIT = 16 * 1024 * 1024


def line(seq: int, ip: str = "192.0.2.10", kind: str = "lease.assigned") -> dict[str, Any]:
    return {
        "seq": seq,
        "type": kind,
        "at": 1_700_000_000_000 + seq,
        "subnet": FIRST_SUBNET_ID,
        "ip": ip,
        "mac": "02:00:00:00:00:01",
        "valid_lft": 3600,
        "cltt": 1_700_000_000,
    }


def ndjson(*lines: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def report(api: Api, body: bytes, coding: str | None = None, path: str = PATH) -> TestResponse:
    headers = {} if coding is None else {"Content-Encoding": coding}
    return api.call("POST", path, data=body, content_type="application/x-ndjson", headers=headers)


@pytest.fixture
def hook(clients: Clients, api: Api) -> Api:
    """Host host-a's own client."""
    api.put("/v1/hosts/host-a", control_url="http://192.0.2.7/", username="", password="")
    return clients("host", "host-a")


def stored(api: Api) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api.get("/v1/events").get_json()["items"]
    return items


def test_a_gzipd_report_is_acknowledged_and_stored(api: Api, hook: Api) -> None:
    answer = report(hook, gzip.compress(ndjson(line(1), line(2))), "gzip")
    assert (answer.status_code, answer.get_json()) == (200, {"acknowledged": 2})
    assert [each["type"] for each in stored(api)] == ["lease.assigned", "lease.assigned"]


def test_a_plain_report_is_taken_too(api: Api, hook: Api) -> None:
    assert report(hook, ndjson(line(1))).get_json() == {"acknowledged": 1}


def test_a_report_without_its_last_line_end_is_whole(api: Api, hook: Api) -> None:
    assert report(hook, ndjson(line(1), line(2)).rstrip()).get_json() == {"acknowledged": 2}


def test_an_empty_report_acknowledges_what_is_known(api: Api, hook: Api) -> None:
    report(hook, ndjson(line(1)))
    assert report(hook, b"").get_json() == {"acknowledged": 1}


def test_a_repeated_report_is_harmless(api: Api, hook: Api) -> None:
    report(hook, ndjson(line(1), line(2)))
    assert report(hook, ndjson(line(1), line(2))).get_json() == {"acknowledged": 2}
    assert len(stored(api)) == 2


def test_events_can_be_filtered(api: Api, hook: Api) -> None:
    report(hook, ndjson(line(1), line(2, kind="lease.released"), line(3, ip="192.0.2.11")))
    released = api.get("/v1/events?type=lease.released&type=lease.expired").get_json()["items"]
    assert [each["data"]["seq"] for each in released] == [2]
    of_subject = api.get("/v1/events", subject=released[0]["subject"]).get_json()["items"]
    assert [each["data"]["seq"] for each in of_subject] == [1, 2]


def test_events_come_in_parts(api: Api, hook: Api) -> None:
    report(hook, ndjson(*map(line, range(1, 6))))
    first = api.get("/v1/events", limit=3).get_json()
    rest = api.get("/v1/events", limit=3, cursor=first["next"]).get_json()
    assert [each["data"]["seq"] for each in first["items"] + rest["items"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("bad", [b"{", b"", b"[]", b"null", b"5", b'{"seq": 1', b"\xff", b"{}{}", b"[" * 100_000])
def test_a_line_that_is_no_object_is_named_and_nothing_is_stored(api: Api, hook: Api, bad: bytes) -> None:
    body = ndjson(line(1), line(2)) + bad + b"\n" + ndjson(line(4))
    answer = report(hook, gzip.compress(body), "gzip")
    assert answer.status_code == 400
    assert answer.get_json()["line"] == 3
    assert "Line 3" in answer.get_json()["detail"]
    assert stored(api) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "lease.lost"},
        {"type": None},
        {"seq": "2"},
        {"seq": 0},
        {"seq": 2**70},
        {"at": -1},
        {"subnet": 0},
        {"ip": "x"},
        {"ip": None},
        {"mac": "zz"},
        {"mac": 5},
    ],
)
def test_a_field_of_a_line_is_named_with_the_line(api: Api, hook: Api, fields: dict[str, object]) -> None:
    answer = report(hook, ndjson(line(1), line(2) | fields))
    assert answer.status_code == 400
    assert answer.get_json()["line"] == 2
    assert answer.get_json()["field"] in fields
    assert stored(api) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no gzip",
        ndjson(line(1)),
        gzip.compress(ndjson(line(1)))[:-1],
        gzip.compress(ndjson(line(1)))[:5],
        gzip.compress(ndjson(line(1))) + b"more",
        gzip.compress(ndjson(line(1))) * 2,
        zlib.compress(ndjson(line(1))),
    ],
)
def test_what_is_no_whole_gzip_stream_is_refused(api: Api, hook: Api, body: bytes) -> None:
    answer = report(hook, body, "gzip")
    assert (answer.status_code, answer.get_json()["code"]) == (400, "body-malformed")
    assert stored(api) == []


def test_a_report_that_grows_beyond_the_limit_is_refused(api: Api, hook: Api) -> None:
    answer = report(hook, gzip.compress(b" " * (LIMIT + 1)), "gzip")
    assert (answer.status_code, answer.get_json()["limit"]) == (413, LIMIT)


def test_a_report_may_be_as_large_as_the_limit(api: Api, hook: Api) -> None:
    body = ndjson(line(1))
    answer = report(hook, gzip.compress(body[:-1] + b" " * (LIMIT - len(body)) + b"\n"), "gzip")
    assert answer.get_json() == {"acknowledged": 1}


def test_another_coding_is_refused(api: Api, hook: Api) -> None:
    answer = report(hook, ndjson(line(1)), "br")
    assert (answer.status_code, answer.get_json()["supported"]) == (415, ["gzip", "deflate", "identity"])


def test_a_deflated_report_is_taken_too(api: Api, hook: Api) -> None:
    assert report(hook, zlib.compress(ndjson(line(1), line(2))), "deflate").get_json() == {"acknowledged": 2}
    bomb = zlib.compress(b" " * (LIMIT + 1))
    assert report(hook, bomb, "deflate").status_code == 413


def test_a_report_has_a_bounded_number_of_lines(api: Api, hook: Api) -> None:
    answer = report(hook, gzip.compress(b"{}\n" * (MAX_LINES + 1)), "gzip")
    assert (answer.status_code, answer.get_json()["limit"]) == (413, MAX_LINES)


def test_another_media_type_is_refused(api: Api, hook: Api) -> None:
    assert hook.call("POST", PATH, json=line(1)).status_code == 415


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("boot_order=1", "boot"),
        (f"boot={BOOT}", "boot_order"),
        ("boot=x&boot_order=1", "boot"),
        (f"boot={BOOT}&boot_order=-1", "boot_order"),
        (f"boot={BOOT}&boot_order=99999999999999999999", "boot_order"),
    ],
)
def test_a_report_says_which_boot_it_is_of(api: Api, hook: Api, query: str, field: str) -> None:
    answer = report(hook, ndjson(line(1)), path=f"/v1/hosts/host-a/events?{query}")
    assert (answer.status_code, answer.get_json()["field"]) == (400, field)


def test_a_report_of_an_unknown_host_is_refused(clients: Clients) -> None:
    answer = report(clients("host", "host-a"), ndjson(line(1)))
    assert (answer.status_code, answer.get_json()["code"]) == (404, "host-not-found")


def test_every_type_that_hooks_report_can_be_filtered_by() -> None:
    assert {*LEASE_TYPES, REJECTED, GAP} <= set(EVENT_TYPES)
