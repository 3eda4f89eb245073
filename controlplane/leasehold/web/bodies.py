"""Request bodies: how each kind is read, refused and described."""

import re
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from leasehold.errors import LeaseholdError
from leasehold.web.problems import BodyMalformed, BodyTooLarge, MediaTypeUnsupported, RequestMalformed

MAX_BODY_OCTETS = 4 * 1024 * 1024
MAX_LIST_OCTETS = 64 * 1024 * 1024
"""Of a body with all that an engine has."""
MAX_LINES_OCTETS = 16 * 1024 * 1024
MAX_LINES = 10_000
"""As many as are stored in one transaction, for which others wait."""
_POSITION = re.compile(r" at line (?P<line>\d+) column (?P<column>\d+)$")
_ERRORS: tuple[type[LeaseholdError], ...] = (BodyMalformed, BodyTooLarge, MediaTypeUnsupported, RequestMalformed)


class Body(Protocol):
    """A kind of request body."""

    @property
    def errors(self) -> tuple[type[LeaseholdError], ...]:
        """What `read` raises, beside ValidationError for fields that do not fit."""

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The models that its description refers to."""

    def read(self, request: Request) -> object:
        """The body's value."""

    def described(self) -> dict[str, Any]:
        """OpenAPI's Request Body Object."""


@dataclass(frozen=True)
class Json:
    """One JSON object of up to `most` octets, as a model. Where it may be left out, `default` takes its place."""

    model: type[BaseModel]
    default: BaseModel | None = None
    most: int = MAX_BODY_OCTETS
    errors: tuple[type[LeaseholdError], ...] = _ERRORS

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The models that its description refers to."""
        return (self.model,)

    def read(self, request: Request) -> BaseModel:
        """Raises ValidationError, and what `errors` says."""
        content = _content(request, self.most)
        if not content and not request.mimetype and self.default is not None:
            return self.default
        _require(request, "Content-Type", request.mimetype, ("application/json",))
        _require(request, "Content-Encoding", _coding(request), ("identity",))
        try:
            return self.model.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if first["type"] == "json_invalid":
                raise _malformed("The body is not JSON", first["ctx"]["error"]) from None
            raise

    def described(self) -> dict[str, Any]:
        """OpenAPI's Request Body Object."""
        schema = {"$ref": f"#/components/schemas/{self.model.__name__}"}
        return {"required": self.default is None, "content": {"application/json": {"schema": schema}}}


@dataclass(frozen=True)
class Lines:
    """Lines of JSON objects (NDJSON), plain or compressed."""

    description: str
    errors: tuple[type[LeaseholdError], ...] = _ERRORS
    models: tuple[type[BaseModel], ...] = ()

    def read(self, request: Request) -> list[dict[str, Any]]:
        """Raises what `errors` says; a bad line is named by its number, from 1."""
        _require(request, "Content-Type", request.mimetype, ("application/x-ndjson",))
        coding = _coding(request)
        _require(request, "Content-Encoding", coding, ("gzip", "deflate", "identity"))
        content = _content(request, MAX_BODY_OCTETS)
        lines = (content if coding == "identity" else _inflate(content, coding)).split(b"\n")
        if not lines[-1]:
            lines.pop()
        if len(lines) > MAX_LINES:
            raise BodyTooLarge(
                f"The body has {len(lines)} lines, and one request may have {MAX_LINES}. Send fewer lines at once.",
                limit=MAX_LINES,
            )
        return [_object(number, line) for number, line in enumerate(lines, 1)]

    def described(self) -> dict[str, Any]:
        """OpenAPI's Request Body Object."""
        schema = {"type": "string", "description": self.description}
        return {"required": True, "content": {"application/x-ndjson": {"schema": schema}}}


def _content(request: Request, most: int) -> bytes:
    """The whole body. Raises BodyTooLarge, and RequestMalformed for one that was cut off."""
    length = request.content_length
    # Werkzeug cuts a chunked body off at its limit, silently; with a limit of one more, it shows.
    request.max_content_length = most + 1
    content = request.get_data(cache=False) if (length or 0) <= most else b""
    if max(length or 0, len(content)) > most:
        raise BodyTooLarge(f"The body is larger than {most} octets. Send less at once.", limit=most)
    if length not in (None, len(content)):
        raise RequestMalformed(f"The body was cut off after {len(content)} of {length} octets. Send it again.")
    return content


def _coding(request: Request) -> str:
    return request.headers.get("Content-Encoding", "identity").strip().lower()


def _require(request: Request, header: str, value: str, supported: tuple[str, ...]) -> None:
    if value not in supported:
        raise MediaTypeUnsupported(
            f"{header} is {value or 'missing'}, and {request.method} {request.path} takes {' or '.join(supported)}.",
            header=header,
            value=value,
            supported=list(supported),
        )


def _malformed(what: str, why: str, **facts: object) -> BodyMalformed:
    position = _POSITION.search(why)
    where = {} if position is None else {name: int(text) for name, text in position.groupdict().items()}
    return BodyMalformed(f"{what}: {why}.", **{**where, **facts})


def _inflate(content: bytes, coding: str) -> bytes:
    # RFC 9110, 8.4.1: "deflate" is the zlib format of RFC 1950.
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS + (16 if coding == "gzip" else 0))
    try:
        plain = stream.decompress(content, MAX_LINES_OCTETS)
    except zlib.error as error:
        raise _malformed(f"The body is not {coding}", str(error)) from None
    if stream.unconsumed_tail:
        raise BodyTooLarge(
            f"The body is larger than {MAX_LINES_OCTETS} octets once it is decompressed. Send fewer lines at once.",
            limit=MAX_LINES_OCTETS,
        )
    if not stream.eof or stream.unused_data:
        how = "something follows its end" if stream.eof else "its end is missing"
        raise _malformed(f"The body is not one whole {coding} stream", how)
    return plain


def _object(number: int, line: bytes) -> dict[str, Any]:
    try:
        value = from_json(line)
    except ValueError as error:
        why = _POSITION.sub(r" at column \g<column>", str(error))
        raise _malformed(f"Line {number} is not JSON", why, line=number) from None
    if not isinstance(value, dict):
        raise _malformed(f"Line {number} is not a JSON object", "each line is one event", line=number)
    return value
