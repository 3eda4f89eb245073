"""The API on a database of its own, through Flask's test client; every answer is held against the OpenAPI document."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_schema_validator import OAS31Validator
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from leasehold.config import Settings
from leasehold.domain.values import Role
from leasehold.service import tokens
from leasehold.service.context import Context, open_context
from leasehold.store.database import Database
from leasehold.web import create_app


@dataclass(frozen=True)
class Api:
    """Calls the API with one token, and refuses an answer that /openapi.json does not promise."""

    app: Flask
    client: FlaskClient
    document: dict[str, Any]
    secret: str | None

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        """One request; `options` are werkzeug's (json, data, headers, query_string)."""
        headers = dict(options.pop("headers", {}))
        if self.secret is not None:
            headers.setdefault("Authorization", f"Bearer {self.secret}")
        response = self.client.open(path, method=method, headers=headers, **options)
        self._check(method, response)
        return response

    def get(self, path: str, **query: object) -> TestResponse:
        return self.call("GET", path, **{"query_string": query} if query else {})

    def put(self, path: str, **body: object) -> TestResponse:
        return self.call("PUT", path, json=body)

    def post(self, path: str, **body: object) -> TestResponse:
        return self.call("POST", path, json=body)

    def patch(self, path: str, headers: Mapping[str, str] | None = None, **body: object) -> TestResponse:
        return self.call("PATCH", path, json=body, headers=dict(headers or {}))

    def delete(self, path: str) -> TestResponse:
        return self.call("DELETE", path)

    def _check(self, method: str, response: TestResponse) -> None:
        try:
            rule, _ = self.app.url_map.bind("localhost").match(response.request.path, method, return_rule=True)
        except HTTPException:
            return
        path = rule.rule.replace("<", "{").replace(">", "}")
        operation = self.document["paths"].get(path, {}).get(method.lower())
        if operation is None:
            return
        described = operation["responses"].get(str(response.status_code))
        assert described is not None, f"{method} {path} does not document {response.status_code}: {response.text}"
        for header in described["headers"]:
            if header != "Location":
                assert header in response.headers
        for media_type, content in described.get("content", {}).items():
            assert response.mimetype == media_type
            if not media_type.endswith("json"):
                continue
            schema = content["schema"] | {"components": self.document["components"]}
            OAS31Validator(schema).validate(json.loads(response.text))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file as a first start leaves it."""
    path: Path = tmp_path_factory.mktemp("installed") / "leasehold.sqlite"
    open_context(Settings(database_url=f"sqlite:///{path}")).db.dispose()
    return path


@pytest.fixture
def ctx(tmp_path: Path, installed: Path) -> Iterator[Context]:
    """`start` does not wait here: there is no worker that could confirm."""
    path = shutil.copy(installed, tmp_path / "leasehold.sqlite")
    settings = Settings(database_url=f"sqlite:///{path}", start_budget_s=0)
    context = Context(Database(settings.database_url), settings)
    yield context
    context.db.dispose()


@pytest.fixture
def app(ctx: Context) -> Flask:
    return create_app(ctx)


@dataclass(frozen=True)
class Clients:
    """Makes an Api for a role, or for nobody."""

    ctx: Context
    app: Flask

    def __call__(self, role: Role | None, host: str | None = None) -> Api:
        secret = None if role is None else tokens.create(self.ctx, role, host)[1]
        client = self.app.test_client()
        return Api(self.app, client, client.get("/openapi.json").get_json(), secret)


@pytest.fixture
def clients(ctx: Context, app: Flask) -> Clients:
    return Clients(ctx, app)


@pytest.fixture
def api(clients: Clients) -> Api:
    """With an administrator's token."""
    return clients("admin")


@pytest.fixture
def subnet(api: Api) -> int:
    """The id of 192.0.2.0/24 on network blue, where IPAM is on."""
    assert api.put("/v1/networks/blue", ipam_enabled=True).status_code == 201
    answer = api.post("/v1/subnets", network="blue", cidr="192.0.2.0/24", gateway="192.0.2.1")
    assert answer.status_code == 201
    return int(answer.get_json()["id"])
