"""Errors on the wire: RFC 9457 `application/problem+json`, and the one table from error to status."""

import inspect
from collections.abc import Mapping
from typing import Any

from flask import Response, g, request
from pydantic_core import to_json
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed, NotFound

from leasehold import errors
from leasehold.errors import LeaseholdError

MEDIA_TYPE = "application/problem+json"
REALM = 'Bearer realm="leasehold"'
_SHOWN_CHARACTERS = 200


class RouteNotFound(errors.NotFound):
    """Nothing lives at this path. Facts: path."""

    code = "route-not-found"


class MethodUnsupported(errors.Invalid):
    """The path does not take this method. Facts: method, allowed."""

    code = "method-unsupported"

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        super().__init__(
            f"{path} does not take {method}. It takes {', '.join(allowed)}.", method=method, allowed=allowed
        )
        self.allowed = allowed


class MediaTypeUnsupported(errors.Invalid):
    """The body is of a media type or content coding that the path does not take. Facts: header, value, supported."""

    code = "media-type-unsupported"


class BodyTooLarge(errors.Invalid):
    """The body is larger than the path takes. Facts: limit (octets)."""

    code = "body-too-large"


class BodyMalformed(errors.Invalid):
    """The body is not what its media type says. Facts: line, column."""

    code = "body-malformed"


class RequestMalformed(errors.Invalid):
    """The request is no sound HTTP, or was cut off."""

    code = "request-malformed"


class Internal(LeaseholdError):
    """A fault of Leasehold's own."""

    code = "internal"


STATUS: Mapping[type[LeaseholdError], int] = {
    MethodUnsupported: 405,
    BodyTooLarge: 413,
    MediaTypeUnsupported: 415,
    errors.Invalid: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.RevisionMismatch: 412,
    errors.Conflict: 409,
    Internal: 500,
    errors.Refused: 502,
    errors.Unavailable: 503,
}


def status_of(kind: type[LeaseholdError]) -> int:
    """The HTTP status of an error class: its own row in the table, else its branch's."""
    return next(STATUS[base] for base in kind.__mro__ if base in STATUS)


def title_of(kind: type[LeaseholdError]) -> str:
    """The same for every occurrence: the first sentence of the class's docstring."""
    return (inspect.getdoc(kind) or kind.code).split(". ")[0].removesuffix(".")


def type_of(kind: type[LeaseholdError]) -> str:
    """The URI that identifies the problem type; a name, not an address to fetch."""
    return f"urn:leasehold:problem:{kind.code}"


def problem(error: LeaseholdError) -> Response:
    """The error as an answer."""
    kind = type(error)
    members = {
        "type": type_of(kind),
        "title": title_of(kind),
        "status": status_of(kind),
        "detail": str(error),
        "code": kind.code,
        "instance": f"urn:leasehold:request:{g.request_id}",
    }
    members |= {name: fact for name, fact in _facts(error).items() if name not in members}
    response = Response(_json(members), status=status_of(kind), mimetype=MEDIA_TYPE)
    if isinstance(error, errors.Unavailable):
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.Unauthenticated):
        # RFC 6750, 3.1: no error code when the request brought no credentials at all.
        response.headers["WWW-Authenticate"] = (
            f'{REALM}, error="invalid_token"' if "Authorization" in request.headers else REALM
        )
    if isinstance(error, MethodUnsupported):
        response.headers["Allow"] = ", ".join(error.allowed)
    return response


def http_problem(error: HTTPException) -> Response:
    """What Flask found wrong by itself, as an answer of the same form."""
    return problem(_translated(error))


def _translated(error: HTTPException) -> LeaseholdError:
    if isinstance(error, NotFound):
        return RouteNotFound(
            f"There is nothing at {request.path}. GET /openapi.json lists every path.", path=request.path
        )
    if isinstance(error, MethodNotAllowed):
        return MethodUnsupported(request.method, request.path, sorted(error.valid_methods or ()))
    if isinstance(error, InternalServerError):
        return Internal(
            "Leasehold failed to answer, by a fault of its own. Its log has the cause under this request's id."
        )
    return RequestMalformed(f"The request could not be read: {error.description}")


def _facts(error: LeaseholdError) -> dict[str, Any]:
    """The error's facts. Every FieldInvalid lists its fields in `errors`, also one that names a single field."""
    facts: dict[str, Any] = dict(error.facts)
    if isinstance(error, errors.FieldInvalid):
        field, value = facts.get("field"), _shown(facts.get("value"))
        faults = facts.get(
            "errors", [{"field": field, "reason": str(error).removeprefix(f"{field}: "), "value": value}]
        )
        facts |= {"value": value, "errors": [each | {"value": _shown(each["value"])} for each in faults]}
    return facts


def _shown(value: object) -> object:
    """A caller's value as the answer repeats it: whole, or the beginning of its JSON."""
    text = _json(value).decode(errors="replace")
    return value if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _json(value: object) -> bytes:
    return to_json(value, inf_nan_mode="strings", fallback=str)
