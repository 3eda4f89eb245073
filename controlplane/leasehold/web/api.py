"""A thin layer over Flask: views with typed parameters, checked before they run, and described by the same types.

A view names what it wants: `ctx` (Context), `caller` (Token), `if_match` and `last_event_id` (headers), the variables
of its path, `query` and `body` (pydantic models). Whatever does not fit is told at once, field by field, and the view
never runs. It returns a value of the service layer, which the route's answer model puts on the wire.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, ParamSpec, Self, TypeVar, get_origin

from flask import Flask, Request, Response, g, request
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException

from leasehold.domain.values import Role, Token
from leasehold.errors import (
    DatabaseBusy,
    FieldInvalid,
    Forbidden,
    IdempotencyKeyReused,
    LeaseholdError,
    Unauthenticated,
)
from leasehold.service import tokens
from leasehold.service.context import Context
from leasehold.service.repeats import KeptAnswer, once
from leasehold.web.bodies import Body, Json
from leasehold.web.problems import Internal, MethodUnsupported, http_problem, problem

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
Fault = dict[str, object]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})

ADMIN: frozenset[Role] = frozenset({"admin"})
WRITERS: frozenset[Role] = frozenset({"admin", "engine"})
READERS: frozenset[Role] = frozenset({"admin", "engine", "read"})
REPORTERS: frozenset[Role] = frozenset({"admin", "engine", "host"})

_KEPT_HEADERS = ("Location", "ETag")
_SECRET_FIELDS = {"password"}


@dataclass(frozen=True)
class Reply(Generic[Answer]):
    """A view's answer with a status of its own, with the path of what it created, or with the revision of what it
    tells, which goes out as its ETag."""

    value: Answer
    status: int = 200
    location: str | None = None
    revision: int | None = None

    @classmethod
    def put(cls, value: Answer, created: bool, location: str) -> Self:
        """The answer to a PUT: 201 for what is new."""
        return cls(value, 201, location) if created else cls(value, 200)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method on one path: everything that dispatch and OpenAPI need."""

    method: str
    rule: str
    view: Callable[..., object]
    tag: str
    roles: frozenset[Role] | None
    statuses: tuple[int, ...]
    answer: type[BaseModel] | None
    media_type: str
    errors: tuple[type[LeaseholdError], ...]
    path: Mapping[str, TypeAdapter[Any]]
    query: type[BaseModel] | None
    body: Body | None
    context: frozenset[str]
    keyed: bool = False

    def arguments(self, request: Request) -> dict[str, object]:
        """What the request says, checked. Raises FieldInvalid that lists every field that does not fit."""
        readers: dict[str, Callable[[], object]] = {
            name: partial(kind.validate_python, (request.view_args or {})[name]) for name, kind in self.path.items()
        }
        if self.query is not None:
            readers["query"] = partial(_read_query, self.query, request.args)
        if self.body is not None:
            readers["body"] = partial(self.body.read, request)
        found: dict[str, object] = {}
        faults: list[Fault] = []
        for name, read in readers.items():
            try:
                found[name] = read()
            except ValidationError as error:
                where = (name,) if name in self.path else ()
                faults += [_fault(each, *where) for each in error.errors(include_url=False)]
        if faults:
            raise _fields_invalid(faults)
        return found

    def response(self, value: object) -> Response:
        """What the view returned, on the wire."""
        if isinstance(value, Response):
            return value
        reply = value if isinstance(value, Reply) else Reply(value, self.statuses[0])
        if self.answer is None:
            return Response(status=reply.status)
        content = self.answer.model_validate(reply.value, from_attributes=True).model_dump_json(by_alias=True)
        response = Response(content, status=reply.status, mimetype="application/json")
        if reply.location is not None:
            response.headers["Location"] = reply.location
        if reply.revision is not None:
            response.headers["ETag"] = f'"{reply.revision}"'
        return response


class Routes:
    """Collects the operations on one kind of resource."""

    def __init__(self, tag: str, prefix: str = "/v1") -> None:
        self.tag = tag
        self.prefix = prefix
        self.operations: list[Operation] = []

    def on(
        self,
        method: str,
        rule: str,
        *,
        roles: frozenset[Role] | None,
        answer: type[BaseModel] | None = None,
        media_type: str = "application/json",
        statuses: tuple[int, ...] | None = None,
        errors: Iterable[type[LeaseholdError]] = (),
        body: Body | None = None,
        keyed: bool = False,
    ) -> Callable[[Callable[Parameters, Answer]], Callable[Parameters, Answer]]:
        """Puts a view on a method and path.

        `roles` None lets everyone in, also without a token. `statuses` are those of success, the usual one first: 200,
        or 204 without an answer, unless given. A view of another `media_type` than JSON returns a Response of it, which
        carries `answer`s. `errors` are the leaf classes that the view raises. `body` comes from the view's parameter
        unless given. A `keyed` view is called once for each Idempotency-Key, and does not wait for anything.
        """

        def decorate(view: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
            parameters = inspect.signature(view, eval_str=True).parameters
            read = body or (_json_of(parameters["body"]) if "body" in parameters else None)
            path = {name: TypeAdapter(parameters[name].annotation) for name in re.findall(r"<(\w+)>", rule)}
            query = parameters["query"].annotation if "query" in parameters else None
            around: list[type[LeaseholdError]] = [] if roles is None else [Unauthenticated, Forbidden, DatabaseBusy]
            has_header = keyed or bool(parameters.keys() & {"if_match", "last_event_id"})
            around += [IdempotencyKeyReused] if keyed else []
            around += [FieldInvalid] if path or query or read or has_header else []
            around += read.errors if read else ()
            self.operations.append(
                Operation(
                    method=method,
                    rule=self.prefix + rule,
                    view=view,
                    tag=self.tag,
                    roles=roles,
                    statuses=statuses or ((200,) if answer else (204,)),
                    answer=answer,
                    media_type=media_type,
                    errors=tuple(dict.fromkeys([*errors, *around, Internal])),
                    path=path,
                    query=query,
                    body=read,
                    context=frozenset(parameters.keys() & {"ctx", "caller", "if_match", "last_event_id"}),
                    keyed=keyed,
                )
            )
            return view

        return decorate


def mount(app: Flask, ctx: Context, operations: Iterable[Operation]) -> None:
    """Serves the operations; every error of the app becomes a problem."""
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    app.register_error_handler(LeaseholdError, problem)
    app.register_error_handler(HTTPException, http_problem)
    operations = list(operations)
    _reserve_words(app, operations)
    for operation in operations:
        app.add_url_rule(
            operation.rule,
            endpoint=f"{operation.method} {operation.rule}",
            view_func=_endpoint(ctx, operation),
            methods=[operation.method],
        )


def _reserve_words(app: Flask, operations: Sequence[Operation]) -> None:
    """Keeps a word like `bulk` in /vnics/bulk from being taken for an id by the methods that only /vnics/<id> has."""
    for rule in sorted({each.rule for each in operations if "<" not in each.rule}):
        parent = rule.rpartition("/")[0]
        if not any(re.fullmatch(rf"{re.escape(parent)}/<\w+>", each.rule) for each in operations):
            continue
        own = sorted(each.method for each in operations if each.rule == rule)
        app.add_url_rule(
            rule,
            endpoint=f"not {rule}",
            view_func=partial(_refuse_method, own),
            methods=sorted(_METHODS - {*own, *(["HEAD"] if "GET" in own else [])}),
        )


def _refuse_method(allowed: list[str]) -> Response:
    raise MethodUnsupported(request.method, request.path, allowed)


def _endpoint(ctx: Context, operation: Operation) -> Callable[..., Response]:
    def endpoint(**_path: str) -> Response:
        known: dict[str, object] = {"ctx": ctx}
        if operation.roles is not None:
            known["caller"] = g.caller = _caller(ctx, request)
            _require_role(g.caller, operation, request)
        if "if_match" in operation.context:
            known["if_match"] = _if_match(request)
        if "last_event_id" in operation.context:
            known["last_event_id"] = _last_event_id(request)
        key = _idempotency_key(request) if operation.keyed else None
        known = {name: known[name] for name in operation.context}
        arguments = operation.arguments(request)
        if key is None or getattr(arguments.get("query"), "dry_run", False):
            return operation.response(operation.view(**known, **arguments))

        def act(inside: Context) -> KeptAnswer:
            response = operation.response(operation.view(**known | {"ctx": inside}, **arguments))
            headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
            return KeptAnswer(status=response.status_code, headers=headers, content=response.get_data(as_text=True))

        kept, repeated = once(ctx, g.caller.id, key, _digest(request, arguments), act)
        response = Response(kept.content, kept.status, kept.headers, mimetype=operation.media_type)
        if repeated:
            response.headers["Idempotency-Replayed"] = "true"
        return response

    return endpoint


def _idempotency_key(request: Request) -> str | None:
    text = request.headers.get("Idempotency-Key")
    if text is not None and not re.fullmatch(r"[!-~]{1,255}", text):
        raise FieldInvalid(
            f"Idempotency-Key: {text!r} is no key. Send 1 to 255 visible ASCII characters, a new UUID for one.",
            field="Idempotency-Key",
            value=text,
        )
    return text


def _digest(request: Request, arguments: Mapping[str, object]) -> bytes:
    """Of what a request means: two that differ in blanks only are the same."""
    read = {name: each.model_dump_json() if isinstance(each, BaseModel) else each for name, each in arguments.items()}
    return hashlib.sha256(repr((request.method, request.path, sorted(read.items()))).encode()).digest()


def _if_match(request: Request) -> int | None:
    """The revision that the caller read (RFC 9110, 13.1.1); None where any will do."""
    text = request.headers.get("If-Match")
    if text is None or text.strip() == "*":
        return None
    match = re.fullmatch(r'\s*"(0|[1-9][0-9]{0,17})"\s*', text, re.ASCII)
    if match is None:
        raise FieldInvalid(
            f"If-Match: {text!r} is no ETag of ours. Send the one that came with what you read, quotes and all.",
            field="If-Match",
            value=text,
        )
    return int(match[1])


def _last_event_id(request: Request) -> int | None:
    """The position that an interrupted stream goes on behind (WHATWG HTML, "Server-sent events")."""
    text = request.headers.get("Last-Event-ID")
    if text is None:
        return None
    if re.fullmatch(r"0|[1-9][0-9]{0,17}", text, re.ASCII) is None:
        raise FieldInvalid(
            f"Last-Event-ID: {text!r} is no id of our stream. Send the last one that came, or none to begin now.",
            field="Last-Event-ID",
            value=text,
        )
    return int(text)


def _caller(ctx: Context, request: Request) -> Token:
    credentials = request.authorization
    if credentials is None or credentials.type != "bearer" or not credentials.token:
        raise Unauthenticated(
            "This needs a bearer token, in the header `Authorization: Bearer lh_…`. `leasehold token create` makes one."
        )
    return tokens.authenticate(ctx, credentials.token)


def _require_role(caller: Token, operation: Operation, request: Request) -> None:
    allowed = operation.roles or frozenset()
    if caller.role not in allowed:
        raise Forbidden(
            f"A token of role {caller.role} may not {operation.method} {request.path}. "
            f"That takes one of role {' or '.join(sorted(allowed))}.",
            role=caller.role,
            roles=sorted(allowed),
        )
    named = (request.view_args or {}).get("host_id")
    if caller.role == "host" and named != caller.host:
        raise Forbidden(
            f"This token speaks for host {caller.host}, and not for {named}. Use the token that was made for {named}.",
            role=caller.role,
            roles=sorted(allowed),
            host=caller.host,
        )


def _json_of(parameter: inspect.Parameter) -> Json:
    default = None if parameter.default is inspect.Parameter.empty else parameter.default
    return Json(parameter.annotation, default)


def _read_query(model: type[BaseModel], given: MultiDict[str, str]) -> BaseModel:
    """A parameter that is given several times is a list, which only a field of that kind takes."""
    lists = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is tuple}
    values = {name: values if name in lists or len(values) > 1 else values[0] for name, values in given.lists()}
    return model.model_validate(values)


def _fault(error: ErrorDetails, *prefix: str) -> Fault:
    field = ".".join(str(part) for part in (*prefix, *error["loc"]) if part != "[key]") or "body"
    if error["type"] == "missing":
        return {"field": field, "reason": "is missing", "value": None}
    if error["type"] == "extra_forbidden":
        reason = "is not known here; /openapi.json says what is"
    else:
        # pydantic writes "Input should be …", "String should have …".
        reason = re.sub(r"^\w+ should ", "should ", error["msg"])
    is_secret = any(part in _SECRET_FIELDS for part in error["loc"])
    return {"field": field, "reason": reason, "value": None if is_secret else error["input"]}


def fields_invalid(error: ValidationError, *where: str) -> FieldInvalid:
    """The same refusal for what did not come in a request, with `where` before the names of its fields."""
    return _fields_invalid([_fault(each, *where) for each in error.errors(include_url=False)])


def _fields_invalid(faults: list[Fault]) -> FieldInvalid:
    each = "; ".join(f"{fault['field']}: {fault['reason']}".removesuffix(".") for fault in faults)
    sentence = f"{each}." if len(faults) == 1 else f"{len(faults)} fields do not fit: {each}."
    return FieldInvalid(sentence, field=faults[0]["field"], value=faults[0]["value"], errors=faults)
