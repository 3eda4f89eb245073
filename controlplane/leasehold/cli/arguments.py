"""Kinds of arguments. What is no value of its kind raises FieldInvalid, as it does in the API."""

from collections.abc import Mapping
from typing import BinaryIO, TypeVar

import click
from netaddr import IPAddress
from pydantic import BaseModel, TypeAdapter, ValidationError

from leasehold.domain.addresses import Mac, MacRange, parse_ip
from leasehold.errors import FieldInvalid
from leasehold.web.api import fields_invalid
from leasehold.web.wire import Id

Model = TypeVar("Model", bound=BaseModel)

_id = TypeAdapter[str](Id)


class IdType(click.ParamType[str]):
    """An id of the engine's own, or one that Leasehold gave."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id itself; raises FieldInvalid."""
        return checked_id(value, _named(param))


class MacType(click.ParamType[Mac]):
    """A MAC, in any of the forms that the API takes."""

    name = "mac"

    def convert(self, value: str | Mac, param: click.Parameter | None, ctx: click.Context | None) -> Mac:
        """The MAC; raises FieldInvalid."""
        return value if isinstance(value, Mac) else Mac.parse(value, _named(param))


class RangeType(click.ParamType[MacRange]):
    """FROM-TO, or FROM/TO: each MAC in any of the forms that the API takes, so that hyphens may be in them too."""

    name = "from-to"

    def convert(self, value: str | MacRange, param: click.Parameter | None, ctx: click.Context | None) -> MacRange:
        """The range, sound or not; raises FieldInvalid for what is none."""
        if isinstance(value, MacRange):
            return value
        for index, character in enumerate(value):
            if character in "-/":
                try:
                    return MacRange(Mac.parse(value[:index]), Mac.parse(value[index + 1 :]))
                except FieldInvalid:
                    continue
        field = _named(param)
        raise FieldInvalid(
            f"{field}: {value!r} is not a range of MACs. Write FROM-TO, like 02:00:5e:10:00:00-02:00:5e:10:00:ff.",
            field=field,
            value=value,
        )


class IpType(click.ParamType[IPAddress]):
    """An IP address."""

    name = "ip"

    def convert(self, value: str | IPAddress, param: click.Parameter | None, ctx: click.Context | None) -> IPAddress:
        """The address; raises FieldInvalid."""
        return value if isinstance(value, IPAddress) else parse_ip(value, _named(param))


ID = IdType()
IP = IpType()
MAC = MacType()
RANGE = RangeType()
FILE = click.File("rb")


def checked_id(text: str, *where: str) -> str:
    """The id itself; raises FieldInvalid that names `where`."""
    try:
        return _id.validate_python(text)
    except ValidationError as error:
        raise fields_invalid(error, *where) from None


def checked(model: type[Model], fields: Mapping[str, object], *where: str) -> Model:
    """The fields as what the API takes; `where` comes before their names in errors. Raises FieldInvalid."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise fields_invalid(error, *where) from None


def name_of(file: BinaryIO) -> str:
    """What errors call the file; a stream need not have a name."""
    return str(getattr(file, "name", "stdin"))


def read_body(model: type[Model], file: BinaryIO) -> Model:
    """A file with what the API takes as a body. Raises FieldInvalid."""
    try:
        return model.model_validate_json(file.read())
    except ValidationError as error:
        raise fields_invalid(error, name_of(file)) from None


def _named(param: click.Parameter | None) -> str:
    if param is None or param.name is None:
        return "value"
    return param.opts[0] if isinstance(param, click.Option) else param.name
