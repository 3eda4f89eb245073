"""Every error that a caller can be told is a problem of RFC 9457, with a code and a status of its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from leasehold.cli.exits import exit_code
from leasehold.errors import Conflict, LeaseholdError, NotFound, Refused, RevisionMismatch, Unavailable
from leasehold.web.problems import status_of, title_of
from web.conftest import Api, Clients

README = Path(__file__).parents[2] / "controlplane" / "README.md"
ROW = re.compile(r"^\| `(?P<code>[a-z-]+)` \| (?P<status>\d{3}) \| (?P<exit>\d) \|", re.MULTILINE)


def leaves(kind: type[LeaseholdError] = LeaseholdError) -> Iterator[type[LeaseholdError]]:
    below = [each for each in kind.__subclasses__() if each.__module__.startswith("leasehold.")]
    if not below:
        yield kind
    for each in below:
        yield from leaves(each)


LEAVES = sorted(leaves(), key=lambda kind: kind.code)


def test_every_leaf_class_has_a_code_that_no_other_has() -> None:
    codes = [kind.code for kind in LEAVES]
    assert len(codes) == len(set(codes))
    assert all("code" in vars(kind) for kind in LEAVES)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.code)
def test_readme_has_the_row_of_every_leaf_class(kind: type[LeaseholdError]) -> None:
    rows = {row["code"]: (int(row["status"]), int(row["exit"])) for row in ROW.finditer(README.read_text())}
    assert rows.get(kind.code) == (status_of(kind), exit_code(kind))


def test_readme_has_no_row_of_a_code_that_is_gone() -> None:
    assert {row["code"] for row in ROW.finditer(README.read_text())} <= {kind.code for kind in LEAVES}


@pytest.mark.parametrize(
    ("kind", "status"), [(NotFound, 404), (Conflict, 409), (Unavailable, 503), (Refused, 502), (LeaseholdError, None)]
)
def test_a_branch_has_the_status_that_the_design_says(kind: type[LeaseholdError], status: int | None) -> None:
    if status is None:
        with pytest.raises(StopIteration):
            status_of(kind)
    else:
        assert {status_of(each) for each in leaves(kind) if each is not RevisionMismatch} <= {status}


def test_a_failed_precondition_has_the_status_of_http() -> None:
    assert status_of(RevisionMismatch) == 412  # RFC 9110, 13.1.1


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.code)
def test_title_is_one_sentence(kind: type[LeaseholdError]) -> None:
    assert title_of(kind)
    assert "Facts" not in title_of(kind)


def test_a_problem_has_the_members_of_rfc_9457_and_its_facts(api: Api) -> None:
    problem = api.get("/v1/vnics/v1").get_json()
    assert problem == {
        "type": "urn:leasehold:problem:vnic-not-found",
        "title": "No vNIC of this id",
        "status": 404,
        "detail": "There is no vNIC 'v1'. Create it with PUT /v1/vnics/v1.",
        "code": "vnic-not-found",
        "instance": problem["instance"],
        "vnic": "v1",
    }


def test_unavailable_says_when_to_ask_again(api: Api, subnet: int) -> None:
    api.put("/v1/vnics/v1", vm="a", name="nic1", subnet=subnet)
    answer = api.post("/v1/vnics/v1/start")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_a_fault_of_our_own_tells_no_detail(app: Flask, clients: Clients, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> str:
        raise RuntimeError("the secret is xyzzy")

    app.add_url_rule("/fail", "fail", fail)
    answer = clients("read").get("/fail")
    assert answer.status_code == 500
    assert answer.get_json()["code"] == "internal"
    assert "xyzzy" not in answer.text
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert vars(logged)["facts"]["request_id"] == answer.headers["X-Request-Id"]


def test_an_unknown_path_is_a_problem(api: Api) -> None:
    answer = api.get("/v1/nothing")
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
    assert answer.get_json()["code"] == "route-not-found"


@pytest.mark.parametrize("path", ["/v1/networks/", "//v1/networks", "/v1//networks", "/v1/networks/a%2Fb"])
def test_a_path_that_is_nearly_one_is_not_redirected(api: Api, path: str) -> None:
    assert api.get(path).status_code == 404


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "DELETE"])
def test_a_method_that_the_path_does_not_take_is_told_which_it_does(api: Api, method: str) -> None:
    answer = api.call(method, "/v1/networks")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert answer.get_json()["allowed"] == ["GET", "HEAD"]


def test_a_request_gets_the_id_that_it_brings(api: Api) -> None:
    answer = api.call("GET", "/v1/vnics/v1", headers={"X-Request-Id": "engine-7"})
    assert answer.headers["X-Request-Id"] == "engine-7"
    assert answer.get_json()["instance"] == "urn:leasehold:request:engine-7"


@pytest.mark.parametrize("brought", ["", "a b", "x" * 129, 'a"b', "ä"])
def test_a_request_id_that_could_forge_a_line_is_replaced(api: Api, brought: str) -> None:
    answer = api.call("GET", "/v1/vnics/v1", headers={"X-Request-Id": brought})
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["X-Request-Id"])
