"""The OpenAPI document is valid, and what it says is what happens."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import not_a_server_error, positive_data_acceptance

from leasehold.config import Settings
from leasehold.service import tokens
from leasehold.service.context import open_context
from leasehold.store.tables import FIRST_SUBNET_ID
from leasehold.web import create_app
from leasehold.web.app import OPERATIONS
from leasehold.web.openapi import document
from leasehold.web.problems import status_of
from web.conftest import Api

README = Path(__file__).parents[2] / "controlplane" / "README.md"
PATHS = {
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/v1/doctor": {"get"},
    "/v1/explain": {"get"},
    "/v1/events": {"get"},
    "/v1/events/stream": {"get"},
    "/v1/hosts": {"get"},
    "/v1/hosts/{host_id}": {"get", "put", "patch", "delete"},
    "/v1/hosts/{host_id}/activate": {"post"},
    "/v1/hosts/{host_id}/fence": {"post"},
    "/v1/hosts/{host_id}/maintenance": {"post"},
    "/v1/hosts/{host_id}/events": {"post"},
    "/v1/clusters": {"get"},
    "/v1/clusters/{scope_id}": {"get", "put", "delete"},
    "/v1/data-centers": {"get"},
    "/v1/data-centers/{scope_id}": {"get", "put", "delete"},
    "/v1/vm-pools": {"get"},
    "/v1/vm-pools/{scope_id}": {"get", "put", "delete"},
    "/v1/leases": {"get"},
    "/v1/mac-pools": {"get", "post"},
    "/v1/mac-pools/overlaps": {"get"},
    "/v1/mac-pools/{pool_id}": {"get", "patch", "delete"},
    "/v1/mac-pools/{pool_id}/macs": {"get"},
    "/v1/mac-pools/{pool_id}/make-default": {"post"},
    "/v1/mac-pools/{pool_id}/merge": {"post"},
    "/v1/mac-pools/{pool_id}/split": {"post"},
    "/v1/networks": {"get"},
    "/v1/networks/{network_id}": {"get", "put", "patch", "delete"},
    "/v1/networks/{network_id}/servers": {"get"},
    "/v1/subnets": {"get", "post"},
    "/v1/subnets/{subnet_id}": {"get", "patch", "delete"},
    "/v1/subnets/{subnet_id}/renumber": {"post"},
    "/v1/subnets/{subnet_id}/reservations": {"get", "post"},
    "/v1/subnets/{subnet_id}/reservations/{ip}": {"delete"},
    "/v1/tokens": {"get", "post"},
    "/v1/tokens/{token_id}": {"get", "delete"},
    "/v1/vnics": {"get"},
    "/v1/vnics/{vnic_id}": {"get", "put", "patch", "delete"},
    "/v1/vnics/bulk": {"post"},
    "/v1/vnics/sync": {"post"},
    "/v1/vnics/import": {"post"},
    "/v1/vnics/{vnic_id}/move": {"post"},
    "/v1/vnics/{vnic_id}/twins": {"post"},
    "/v1/vnics/{vnic_id}/twins/{twin_id}": {"delete"},
    "/v1/vnics/{vnic_id}/start": {"post"},
    "/v1/vnics/{vnic_id}/stop": {"post"},
    "/v1/webhooks": {"get", "post"},
    "/v1/webhooks/{webhook_id}": {"get", "patch", "delete"},
    "/v1/webhooks/{webhook_id}/attempts": {"get"},
    "/v1/webhooks/{webhook_id}/deliveries": {"get"},
    "/v1/webhooks/{webhook_id}/pause": {"post"},
    "/v1/webhooks/{webhook_id}/replay": {"post"},
    "/v1/webhooks/{webhook_id}/resume": {"post"},
    "/v1/webhooks/{webhook_id}/rotate": {"post"},
    "/v1/webhooks/{webhook_id}/test": {"post"},
}


@pytest.fixture
def described(api: Api) -> dict[str, Any]:
    return api.document


def test_the_readme_has_every_path_and_no_other() -> None:
    told = set()
    for row in re.findall(r"^\| (`/.*?) \|", README.read_text(), re.MULTILINE):
        base = ""
        for path in re.findall(r"`(.*?)`", row):
            is_whole = path.startswith("/v1/") or not base.startswith("/v1/")
            base = path if is_whole else base.rpartition("/")[0] + "/" + path.rpartition("/")[2]
            told.add(re.sub("{.*?}", "{}", base))
    assert told - {"/metrics"} == {re.sub("{.*?}", "{}", path) for path in PATHS}


def test_the_document_is_valid(described: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(described).validate()


def test_the_document_has_every_path(described: dict[str, Any]) -> None:
    assert {path: set(operations) for path, operations in described["paths"].items()} == PATHS


def test_every_operation_has_an_id_of_its_own_and_a_summary(described: dict[str, Any]) -> None:
    operations = [each for path in described["paths"].values() for each in path.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    assert all(each["summary"].endswith(".") for each in operations)


def test_what_needs_a_token_says_so_and_what_it_answers_without(described: dict[str, Any]) -> None:
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert operation["security"] == ([{"token": []}] if path.startswith("/v1") else [])
            assert ("401" in operation["responses"]) is path.startswith("/v1")


def test_an_error_is_documented_under_its_status_with_its_code(described: dict[str, Any]) -> None:
    for operation in OPERATIONS:
        path = operation.rule.replace("<", "{").replace(">", "}")
        responses = described["paths"][path][operation.method.lower()]["responses"]
        for kind in operation.errors:
            content = responses[str(status_of(kind))]["content"]["application/problem+json"]
            assert kind.code in content["schema"]["allOf"][1]["properties"]["code"]["enum"]


class Late:
    """A WSGI application that is there when it is called: schemathesis wants one when tests are collected."""

    app: Flask

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self.app(environ, start_response)


schemathesis.serializer.alias("application/x-ndjson", "text/plain")
late = Late()
schema = schemathesis.openapi.from_dict(document(OPERATIONS))
schema.app = late


@pytest.fixture(scope="module")
def administrator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The header that lets an administrator in at an API that has a little of everything."""
    directory = tmp_path_factory.mktemp("openapi")
    ctx = open_context(
        Settings(
            database_url=f"sqlite:///{directory}/leasehold.sqlite",
            start_budget_s=0,
            sweep_interval_s=0,
            control_timeout_s=0.05,
            control_connect_timeout_s=0.05,
        )
    )
    headers = {"Authorization": f"Bearer {tokens.create(ctx, 'admin')[1]}"}
    app = create_app(ctx)
    client = app.test_client()
    client.put("/v1/networks/blue", json={"ipam_enabled": True}, headers=headers)
    client.post("/v1/subnets", json={"network": "blue", "cidr": "192.0.2.0/24"}, headers=headers)
    client.put("/v1/vnics/v1", json={"vm": "vm1", "name": "nic1", "subnet": FIRST_SUBNET_ID}, headers=headers)
    late.app = app
    yield headers
    ctx.db.dispose()


@schema.exclude(path="/v1/events/stream").parametrize()  # whose answer lasts
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_api_does_what_its_document_says(case: schemathesis.Case[Any], administrator: dict[str, str]) -> None:
    # A schema cannot say that a gateway lies in its subnet, or a MAC is no other vNIC's: what fits it may be refused.
    excluded = [positive_data_acceptance]
    response = case.call(headers=administrator)
    if response.status_code == 503:
        # Without an IPAM server a start is promised, and says so: a documented answer, and no fault.
        excluded.append(not_a_server_error)
    given = {"headers": dict(administrator)}
    case.validate_response(response, headers=administrator, excluded_checks=excluded, transport_kwargs=given)
