"""OpenAPI 3.1, out of the operations themselves."""

import inspect
import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from leasehold.errors import LeaseholdError
from leasehold.web.api import Operation
from leasehold.web.problems import MEDIA_TYPE, status_of, title_of

_REF = "#/components/schemas/{model}"
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details. The facts of the error are further members.",
    "required": ["type", "title", "status", "detail", "code", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "urn:leasehold:problem: and the code"},
        "title": {"type": "string", "description": "the same for every occurrence"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what was wrong, with which value, and what to do"},
        "code": {"type": "string", "description": "stable, for programs"},
        "instance": {"type": "string", "format": "uri", "description": "urn:leasehold:request: and the request's id"},
        "errors": {
            "type": "array",
            "description": "with code field-invalid: every field that does not fit",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}, "value": {}},
            },
        },
    },
}
_HEADERS: dict[str, Any] = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "the caller's own, or a new one"},
    "Retry-After": {"schema": {"type": "integer"}, "description": "seconds"},
    "WWW-Authenticate": {"schema": {"type": "string"}},
    "ETag": {"schema": {"type": "string"}, "description": "the revision, for If-Match"},
    "Location": {"schema": {"type": "string"}, "description": "path of what was created"},
}
_REQUEST_HEADERS: dict[str, dict[str, Any]] = {
    "if_match": {
        "name": "If-Match",
        "description": "the ETag of what was read; with another, nothing is changed",
        "schema": {"type": "string", "pattern": '^"(0|[1-9][0-9]{0,17})"$'},
    },
    "keyed": {
        "name": "Idempotency-Key",
        "description": "chosen by the caller: a repetition with the same key gets the same answer, and changes nothing",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    },
    "last_event_id": {
        "name": "Last-Event-ID",
        "description": "the last id that came; the stream goes on behind it",
        "schema": {"type": "string", "pattern": "^(0|[1-9][0-9]{0,17})$"},
    },
}
_HEADERS_OF_STATUS = {201: ("Location",), 401: ("WWW-Authenticate",), 503: ("Retry-After",)}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI document of the operations, JSON-ready."""
    operations = list(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = re.sub(r"<(\w+)>", r"{\1}", operation.rule)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Leasehold",
            "version": version("leasehold"),
            "summary": "MAC and IP addresses for virtual machines, served by Kea exactly as promised.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, **_schemas(operations)},
            "headers": _HEADERS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "made by `leasehold token create`"}
            },
        },
    }


def _schemas(operations: list[Operation]) -> dict[str, Any]:
    taken = {model for each in operations if each.body for model in each.body.models}
    given = {each.answer for each in operations if each.answer}
    _, schema = models_json_schema(
        [
            *((model, "validation") for model in sorted(taken, key=_name)),
            *((model, "serialization") for model in sorted(given, key=_name)),
        ],
        ref_template=_REF,
    )
    schemas: dict[str, Any] = schema["$defs"]
    return schemas


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _operation(operation: Operation) -> dict[str, Any]:
    summary, _, description = (inspect.getdoc(operation.view) or "").partition("\n\n")
    if operation.roles is not None:
        description = f"{description}\n\nRoles: {', '.join(sorted(operation.roles))}.".strip()
    described: dict[str, Any] = {
        "operationId": operation.view.__name__,
        "tags": [operation.tag],
        "summary": summary,
        "description": description,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "responses": {**_answers(operation), **_problems(operation)},
        "security": [] if operation.roles is None else [{"token": []}],
    }
    if operation.body is not None:
        described["requestBody"] = operation.body.described()
    return described


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": kind.json_schema()}
        for name, kind in operation.path.items()
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema()
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": _not_null(field)}
        for name, field in schema["properties"].items()
    ]


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"in": "header", "required": False, **described}
        for name, described in _REQUEST_HEADERS.items()
        if name in operation.context or (name == "keyed" and operation.keyed)
    ]


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out is null inside, and never on the wire."""
    kept = {name: value for name, value in schema.items() if name not in ("anyOf", "default") or value is not None}
    if "anyOf" in kept:
        (only,) = [each for each in kept.pop("anyOf") if each != {"type": "null"}]
        kept |= only
    return kept


def _answers(operation: Operation) -> dict[str, Any]:
    content = {}
    if operation.answer is not None:
        content = {operation.media_type: {"schema": {"$ref": _REF.format(model=operation.answer.__name__)}}}
    texts = {200: "Done", 201: "Created", 204: "Done, and nothing to say"}
    return {
        str(status): {"description": texts[status], "headers": _headers(status)}
        | ({"content": content} if content else {})
        for status in operation.statuses
    }


def _problems(operation: Operation) -> dict[str, Any]:
    by_status: dict[int, list[type[LeaseholdError]]] = {}
    for kind in operation.errors:
        by_status.setdefault(status_of(kind), []).append(kind)
    return {
        str(status): {
            "description": "\n".join(f"`{kind.code}`: {title_of(kind)}." for kind in kinds),
            "headers": _headers(status),
            "content": {
                MEDIA_TYPE: {
                    "schema": {
                        "allOf": [
                            {"$ref": _REF.format(model="Problem")},
                            {"properties": {"code": {"enum": [kind.code for kind in kinds]}}},
                        ]
                    }
                }
            },
        }
        for status, kinds in sorted(by_status.items())
    }


def _headers(status: int) -> dict[str, Any]:
    names = ("X-Request-Id", *_HEADERS_OF_STATUS.get(status, ()))
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
