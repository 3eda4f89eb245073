"""Who may do what."""

import re
from typing import get_args

import pytest

from leasehold.domain.values import Role
from leasehold.web.api import Operation
from leasehold.web.app import OPERATIONS
from web.conftest import Api, Clients

GUARDED = [each for each in OPERATIONS if each.roles is not None]


def path_of(operation: Operation) -> str:
    path = re.sub(r"<\w+>", "1", operation.rule)
    return f"{path}?seconds=1" if path.endswith("/stream") else path


def allowed(operation: Operation, role: Role) -> bool:
    """The roles as the README tells them."""
    if role == "admin":
        return True
    if operation.rule.startswith("/v1/tokens"):
        return False
    if role == "engine":
        return True
    if role == "read":
        return operation.method == "GET"
    return operation.rule == "/v1/hosts/<host_id>/events"


@pytest.mark.parametrize("operation", GUARDED, ids=lambda each: each.view.__name__)
def test_nobody_gets_in_without_a_token(clients: Clients, operation: Operation) -> None:
    answer = clients(None).call(operation.method, path_of(operation))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="leasehold"'


@pytest.mark.parametrize("role", get_args(Role))
@pytest.mark.parametrize("operation", GUARDED, ids=lambda each: each.view.__name__)
def test_a_role_may_do_what_it_is_for_and_nothing_else(clients: Clients, operation: Operation, role: Role) -> None:
    answer = clients(role, "1" if role == "host" else None).call(operation.method, path_of(operation))
    answer.close()
    assert (answer.status_code != 403) is allowed(operation, role)


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer lh_unknown", "Basic YTpi", "lh_x", "bearer\tlh_x", "Bearer ä"]
)
def test_a_header_that_proves_nothing_is_refused(clients: Clients, header: str) -> None:
    answer = clients(None).call("GET", "/v1/networks", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_unknown_token_is_called_invalid(clients: Clients) -> None:
    answer = clients(None).call("GET", "/v1/networks", headers={"Authorization": "Bearer lh_unknown"})
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert "lh_unknown" not in answer.text


def test_a_host_may_not_report_for_another(clients: Clients) -> None:
    answer = clients("host", "host-a").call("POST", "/v1/hosts/host-b/events")
    assert answer.status_code == 403
    assert answer.get_json()["host"] == "host-a"


def test_a_deleted_token_lets_nobody_in(clients: Clients, api: Api) -> None:
    created = api.post("/v1/tokens", role="read").get_json()
    headers = {"Authorization": f"Bearer {created['secret']}"}
    nobody = clients(None)
    assert nobody.call("GET", "/v1/networks", headers=headers).status_code == 200
    assert api.delete(f"/v1/tokens/{created['id']}").status_code == 204
    assert nobody.call("GET", "/v1/networks", headers=headers).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/"])
def test_what_supervision_asks_for_needs_no_token(clients: Clients, path: str) -> None:
    assert clients(None).get(path).status_code == 200


def test_a_refused_caller_learns_nothing_of_what_exists(clients: Clients) -> None:
    """The token is looked at before anything else of the request."""
    answer = clients(None).call("PUT", "/v1/networks/no such id", data=b"{", content_type="text/plain")
    assert answer.status_code == 401
