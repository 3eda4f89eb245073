"""Kinds of values on the wire, and what every model and list shares."""

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlsplit

from netaddr import IPAddress, IPNetwork
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from leasehold.domain.addresses import Mac, MacRange, parse_cidr, parse_ip
from leasehold.errors import FieldInvalid

Value = TypeVar("Value")
Key = TypeVar("Key", str, int, IPAddress, Mac)


_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:~-]{0,127}", re.ASCII)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6}\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DIGITS = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


class In(BaseModel):
    """What a caller sends. Unknown fields are refused, and nothing is converted: "1" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """A query string. Unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Out(BaseModel):
    """What we answer, read from the attributes of the service layer's values."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


def _refused(reason: str) -> PydanticCustomError:
    return PydanticCustomError("field_invalid", "{reason}", {"reason": reason})


def _parsed(kind: type[Value], parse: Callable[[str, str], Value]) -> PlainValidator:
    def validate(value: object, info: ValidationInfo) -> Value:
        if isinstance(value, kind):
            return value
        if not isinstance(value, str):
            raise _refused("should be a string")
        field = info.field_name or "value"
        try:
            return parse(value, field)
        except FieldInvalid as error:
            raise _refused(str(error).removeprefix(f"{field}: ")) from None

    return PlainValidator(validate)


def matching(pattern: str, reason: str) -> tuple[AfterValidator, Any]:
    """A rule for strings, told to people by its reason and to programs by its pattern."""
    compiled = re.compile(pattern, re.ASCII)

    def validate(text: str) -> str:
        if not compiled.fullmatch(text):
            raise _refused(reason)
        return text

    return AfterValidator(validate), Field(json_schema_extra={"pattern": f"^{pattern}$"})


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_sound = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and parts.username is None
            and not parts.fragment
            and re.fullmatch(r"[!-~]+", text) is not None
        )
    except ValueError:
        is_sound = False
    if not is_sound:
        raise _refused("is not an http or https URL with a host, and without user, password or fragment")
    return text


def _instant(text: str, field: str) -> datetime:
    try:
        if _RFC_3339.fullmatch(text):
            return datetime.fromisoformat(text.upper())
    except ValueError:
        pass
    raise FieldInvalid(f"{field}: {text!r} is no instant like 2030-01-31T12:00:00Z", field=field, value=text)


def _digits(text: object) -> object:
    if isinstance(text, str) and not _DIGITS.fullmatch(text):
        raise _refused("should be a number in decimal digits")
    return text


_id_rule, _id_schema = matching(
    _ID.pattern,
    "is no id. Use up to 128 letters, digits, and . _ : ~ -, the first a letter or digit",
)
_text_rule, _text_schema = matching(
    r"[^\x00-\x1f\x7f]{0,255}", "should be up to 255 characters, and no control characters"
)
_name_rule, _name_schema = matching(
    r"[^\x00-\x1f\x7f]{1,255}", "should be 1 to 255 characters, and no control characters"
)
_label = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_domain_rule, _domain_schema = matching(
    rf"(?=.{{1,253}}$){_label}(\.{_label})*", "is not a domain name, like example.com"
)
_interface_rule, _interface_schema = matching(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", "is not the name of a network interface, like eth0"
)
_user_rule, _user_schema = matching(
    r"[^\x00-\x1f\x7f:]{0,255}", "should be up to 255 characters, and no colon or control characters"
)

Id = Annotated[str, _id_rule, _id_schema]
"""An id of the engine's own, or one that Leasehold gave."""
Text = Annotated[str, _text_rule, _text_schema]
Name = Annotated[str, _name_rule, _name_schema]
Domain = Annotated[str, _domain_rule, _domain_schema]
Interface = Annotated[str, _interface_rule, _interface_schema]
UserName = Annotated[str, _user_rule, _user_schema]
"""RFC 7617, 2: a user name in Basic authentication has no colon."""
HttpUrl = Annotated[str, Field(max_length=2048), AfterValidator(_http_url), Field(json_schema_extra={"format": "uri"})]
QueryInt = Annotated[int, BeforeValidator(_digits)]
SubnetId = Annotated[int, BeforeValidator(_digits), Field(ge=1, le=2**31 - 1)]
BodySubnetId = Annotated[int, Field(ge=1, le=2**31 - 1)]

_OCTET = "[0-9A-Fa-f]{2}"
MacText = Annotated[
    Mac,
    _parsed(Mac, Mac.parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": (
                f"^({_OCTET}(:{_OCTET}){{5}}|{_OCTET}(-{_OCTET}){{5}}"
                f"|[0-9A-Fa-f]{{4}}(\\.[0-9A-Fa-f]{{4}}){{2}}|[0-9A-Fa-f]{{12}})$"
            ),
            "examples": ["02:00:5e:10:00:01"],
        }
    ),
]
IpText = Annotated[
    IPAddress,
    _parsed(IPAddress, parse_ip),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "format": "ipv4", "examples": ["192.0.2.10"]}),
]
CidrText = Annotated[
    IPNetwork,
    _parsed(IPNetwork, parse_cidr),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$", "examples": ["192.0.2.0/24"]}
    ),
]


Instant = Annotated[
    datetime,
    _parsed(datetime, _instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2030-01-31T12:00:00Z"]}),
]
"""RFC 3339, with its offset from UTC."""


def id_key(text: str) -> str:
    """The key of a list that is by id; raises ValueError for what is no id."""
    if not _ID.fullmatch(text):
        raise ValueError(text)
    return text


def number_key(text: str) -> int:
    """The key of a list that is by number; raises ValueError for what no answer had."""
    if not _DIGITS.fullmatch(text):
        raise ValueError(text)
    return int(text)


class MacRangeIn(In):
    """An inclusive range."""

    first: Annotated[MacText, Field(alias="from")]
    last: Annotated[MacText, Field(alias="to")]

    def value(self) -> MacRange:
        """Its value; whether it is sound is the service's to say."""
        return MacRange(self.first, self.last)


class MacRangeOut(Out):
    """An inclusive range."""

    first: Annotated[MacText, Field(serialization_alias="from")]
    last: Annotated[MacText, Field(serialization_alias="to")]


class WriteQuery(Query):
    """How a change is meant."""

    dry_run: bool = False
    """Answer what it would do, and change nothing."""


class PageQuery(Query):
    """Which part of a list."""

    limit: Annotated[QueryInt, Field(ge=1, le=1000)] = 100
    """Items in one answer."""
    cursor: Annotated[str, Field(max_length=512)] | None = None
    """`next` of the answer before."""


class PageOut(Out, Generic[Value]):
    """Part of a list. `next` is the cursor of the part behind it; null: this was the last."""

    items: list[Value]
    next: str | None


@dataclass(frozen=True)
class Page(Generic[Value]):
    """Part of a list, of the service layer's values."""

    items: list[Value]
    next: str | None


@dataclass(frozen=True)
class Listing(Generic[Value, Key]):
    """A list that is answered part by part, in the order of its keys.

    Its cursor names the list and the last key that was seen, so that what comes and goes between two calls neither
    repeats nor hides the rest.
    """

    name: str
    key: Callable[[Value], Key]
    parse: Callable[[str], Key]

    def page(self, query: PageQuery, fetch: Callable[[int, Key | None], Iterable[Value]]) -> Page[Value]:
        """The part that the query asks for; `fetch(limit, after)` brings up to so many values behind a key.

        Raises FieldInvalid for a cursor that no answer of this list had.
        """
        found = list(fetch(query.limit + 1, self.after(query.cursor)))
        items = found[: query.limit]
        return Page(items, self.cursor(self.key(items[-1])) if len(found) > query.limit else None)

    def page_of(self, query: PageQuery, values: Iterable[Value]) -> Page[Value]:
        """The same, out of the whole list."""
        ordered = sorted(values, key=self.key)
        return self.page(
            query,
            lambda limit, after: [each for each in ordered if after is None or self.key(each) > after][:limit],
        )

    def cursor(self, key: Key) -> str:
        """The cursor of the part behind a key."""
        return base64.urlsafe_b64encode(f"{self.name} {key}".encode()).decode().rstrip("=")

    def after(self, cursor: str | None) -> Key | None:
        """The key that a cursor names, None for none. Raises FieldInvalid for a cursor that no answer of this list
        had."""
        if cursor is None:
            return None
        try:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            name, key = base64.b64decode(padded, altchars=b"-_", validate=True).decode().split(" ", 1)
            after = self.parse(key) if name == self.name else None
        except (ValueError, binascii.Error, FieldInvalid):
            after = None
        if after is None:
            raise FieldInvalid(
                f"cursor: {cursor!r} is no cursor of this list. Use `next` of its last answer, or none to begin anew.",
                field="cursor",
                value=cursor,
            )
        return after
