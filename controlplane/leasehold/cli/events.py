"""`leasehold events`."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, TextIO, TypeVar

import click
import httpx

from leasehold.cli.arguments import checked
from leasehold.cli.opening import open_database
from leasehold.cli.printing import as_json_option, note
from leasehold.domain.event_types import EVENT_TYPES
from leasehold.errors import FieldInvalid
from leasehold.service import events
from leasehold.service.bell import News
from leasehold.service.context import Context
from leasehold.web.events import EventOut, WhichEvents

Command = TypeVar("Command", bound=Callable[..., Any])
_AT_ONCE = 500
_LOOK_EVERY_S = 0.5
_AGAIN_AFTER_S = 1
_SILENT_S = 30  # an open stream gives a sign of life every ten seconds


def _which(command: Command) -> Command:
    """Options for which events."""
    for option in reversed(
        [
            click.option("--type", "types", multiple=True, help="Only these types; lease.* for several."),
            click.option("--subject", help="Only those of this subject."),
            click.option("--subject-prefix", help="Only those of subjects that begin so, like subnets/7/."),
        ]
    ):
        command = option(command)
    return command


@click.group("events")
def events_group() -> None:
    """Events: what happened, in the order in which it became known."""


@events_group.command("list")
@_which
@click.option("--since", metavar="INSTANT", help="What happened then or later, like 2030-01-31T12:00:00Z.")
@click.option("--until", metavar="INSTANT", help="What happened before.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="POSITION", help="What came behind it.")
@click.option("--limit", type=click.IntRange(1), help="At most so many, the oldest.")
@as_json_option
def list_events(after: int, limit: int | None, as_json: bool, **which: Any) -> None:
    """Print events, the oldest first.

    With --json a line of JSON for each."""
    ctx = open_database()
    wanted = _wanted(**which).filter()
    left = limit
    while left is None or left > 0:
        found = events.find(ctx, wanted, after=after, limit=_AT_ONCE if left is None else min(left, _AT_ONCE))
        for event in found.events:
            _print(EventOut.model_validate(event), as_json)
        if found.is_all:
            return
        after = found.looked_to
        left = None if left is None else left - len(found.events)


@events_group.command("tail")
@_which
@click.option(
    "--after", type=click.IntRange(0), metavar="POSITION", help="Begin behind it, and not with what comes now."
)
@click.option("--count", type=click.IntRange(1), help="End after so many.")
@click.option("--api", metavar="URL", help="Follow that API's stream, and not the database.")
@click.option("--token-file", type=click.File("r"), help="With --api: the token for it.")
@as_json_option
def tail(
    after: int | None, count: int | None, api: str | None, token_file: TextIO | None, as_json: bool, **which: Any
) -> None:
    """Print events as they come, until Ctrl-C.

    With --json a line of JSON for each."""
    if (api is None) != (token_file is None):
        raise click.UsageError("--api and --token-file go together.")
    wanted = _wanted(since=None, until=None, **which)
    if api is not None and token_file is not None:
        found = _streamed(api, token_file.read().strip(), wanted, after)
    else:
        found = _followed(open_database(), wanted, after)
    for number, event in enumerate(found, start=1):
        _print(event, as_json)
        if number == count:
            return


def _wanted(types: tuple[str, ...], **which: Any) -> WhichEvents:
    """Raises FieldInvalid."""
    fitting: set[str] = set()
    for pattern in types:
        found = {each for each in EVENT_TYPES if fnmatchcase(each, pattern)}
        if not found:
            raise FieldInvalid(
                f"--type: no event is of type {pattern!r}. The types are {', '.join(EVENT_TYPES)}.",
                field="--type",
                value=pattern,
            )
        fitting |= found
    given = {name: value for name, value in which.items() if value is not None}
    return checked(WhichEvents, {"type": tuple(sorted(fitting)), **given})


def _followed(ctx: Context, wanted: WhichEvents, after: int | None) -> Iterator[EventOut]:
    """From the database."""
    ctx.bell.start()
    if after is None:
        with ctx.db.read() as connection:
            after = events.last_position(connection)
    chosen = wanted.filter()
    while True:
        heard = ctx.bell.heard(News.EVENTS)
        found = events.find(ctx, chosen, after=after, limit=_AT_ONCE)
        yield from map(EventOut.model_validate, found.events)
        after = found.looked_to
        if found.is_all:
            ctx.bell.wait(heard, _LOOK_EVERY_S, News.EVENTS)


def _streamed(api: str, token: str, wanted: WhichEvents, after: int | None) -> Iterator[EventOut]:
    """From an API, which ends each stream after a while. Raises ClickException for what it refuses."""
    parameters = wanted.model_dump(mode="json", exclude_defaults=True)
    last = None if after is None else str(after)
    with httpx.Client(base_url=api.rstrip("/"), headers={"Authorization": f"Bearer {token}"}) as client:
        while True:
            headers = {} if last is None else {"Last-Event-ID": last}
            try:
                with client.stream(
                    "GET", "/v1/events/stream", params=parameters, headers=headers, timeout=_SILENT_S
                ) as response:
                    if 400 <= response.status_code < 500:
                        response.read()
                        raise click.ClickException(f"{api} answers {response.status_code}: {_detail(response)}")
                    response.raise_for_status()
                    fields: dict[str, str] = {}
                    for line in response.iter_lines():
                        if line:
                            name, _, value = line.partition(": ")
                            fields[name] = value
                            continue
                        # Only with the empty line is a message whole. Source: HTML, "Server-sent events".
                        if "data" in fields:
                            yield EventOut.model_validate_json(fields["data"])
                        last = fields.get("id", last)
                        fields = {}
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                note(f"{api}: {error or type(error).__name__}. Coming again in {_AGAIN_AFTER_S} s.")
                time.sleep(_AGAIN_AFTER_S)


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _print(event: EventOut, as_json: bool) -> None:
    if as_json:
        click.echo(event.model_dump_json())
        return
    facts = " ".join(f"{name}={value}" for name, value in event.data.items() if value is not None)
    click.echo(f"{event.position} {_instant(event.time)} {event.type} {event.subject} {facts}".rstrip())


def _instant(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
