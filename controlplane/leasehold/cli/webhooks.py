"""`leasehold webhook`."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from leasehold.cli.arguments import ID, checked
from leasehold.cli.listening import listen
from leasehold.cli.opening import open_database
from leasehold.cli.printing import (
    Columns,
    as_json_option,
    columns_of,
    dry_run_option,
    note,
    note_dry_run,
    print_as,
    print_fields,
    print_table,
)
from leasehold.domain.values import Attempt, Delivery, Progress, Replayed, Trial, Webhook
from leasehold.service import delivery_log, webhooks
from leasehold.web.webhooks import (
    AttemptOut,
    DeliveryOut,
    ReplayedOut,
    ReplayIn,
    RotationIn,
    Shown,
    TrialOut,
    WebhookIn,
    WebhookOut,
    WebhookPatch,
    WebhookSecret,
    WebhookShown,
)

Command = TypeVar("Command", bound=Callable[..., Any])
_LISTS = ("types", "subjects", "networks", "subnets")

_FIELDS: Columns[Webhook] = {
    "id": lambda each: each.id,
    "url": lambda each: each.url,
    "description": lambda each: each.description,
    "types": lambda each: each.types or "all",
    "subjects": lambda each: each.subjects or "all",
    "networks": lambda each: each.networks or "all",
    "subnets": lambda each: each.subnets or "all",
    "batch": lambda each: each.batch and f"up to {each.batch.events} events, {each.batch.octets} octets",
    "concurrency": lambda each: each.concurrency,
    "state": lambda each: f"{each.state}, since {each.state_reason}" if each.state_reason else each.state,
    "old secret until": lambda each: each.old_secret_until,
}
_PROGRESS: Columns[Progress] = {
    "behind": lambda each: f"{each.behind} events, {each.behind_s:.1f} s" if each.behind else None,
    "waiting": lambda each: each.waiting,
    "dead": lambda each: each.dead,
}
_DELIVERIES: Columns[Delivery] = {
    "position": lambda each: each.event.position,
    "type": lambda each: each.event.type,
    "subject": lambda each: each.event.subject,
    "state": lambda each: each.state,
    "attempts": lambda each: each.attempts,
    "last": lambda each: each.last_at,
    "ms": lambda each: each.last_duration_ms,
    "due": lambda each: each.due_at if each.state == "waiting" else None,
    "status": lambda each: each.last_status,
    "error": lambda each: each.last_error,
}
_ATTEMPTS: Columns[Attempt] = {
    "at": lambda each: each.at.isoformat(timespec="milliseconds"),
    "ms": lambda each: each.duration_ms,
    "events": lambda each: each.events,
    "positions": lambda each: f"{each.first_position} to {each.last_position}",
    "status": lambda each: each.status,
    "error": lambda each: each.error,
}
_TRIAL: Columns[Trial] = {
    "delivered": lambda each: each.delivered,
    "status": lambda each: each.status,
    "error": lambda each: each.error,
    "ms": lambda each: each.duration_ms,
}
_webhook = click.argument("webhook_id", metavar="ID", type=ID)
_limit = click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")


def _wishes(command: Command) -> Command:
    """Options for what a webhook is told, and how."""
    for option in reversed(
        [
            click.option("--description", help="What it is for."),
            click.option("--type", "types", multiple=True, help="Only these types; lease.* for several."),
            click.option("--subject", "subjects", multiple=True, help="Only these subjects; * for anything."),
            click.option("--network", "networks", multiple=True, type=ID, help="Only what names this network."),
            click.option("--subnet", "subnets", multiple=True, type=int, help="Only what names this subnet."),
            click.option("--batch", type=int, metavar="EVENTS", help="JSON batches of up to so many events."),
            click.option("--batch-octets", type=int, metavar="OCTETS", help="And up to so many octets."),
            click.option("--concurrency", type=int, help="Requests under way at once; a subject keeps its order."),
        ]
    ):
        command = option(command)
    return command


def wanted(url: str | None, batch: int | None, batch_octets: int | None, **fields: Any) -> dict[str, object]:
    """What was given of a webhook's fields, as the API's body has them."""
    found = {name: value for name, value in {"url": url, **fields}.items() if value not in (None, ())}
    if batch is not None or batch_octets is not None:
        limits = {"events": batch, "octets": batch_octets}
        found["batch"] = {name: value for name, value in limits.items() if value is not None}
    return found


@click.group()
def webhook() -> None:
    """Webhooks: who is told of which events, and what came of it."""


@webhook.command("list")
@as_json_option
def list_webhooks(as_json: bool) -> None:
    """List all webhooks, and how far they were told."""
    ctx = open_database()
    found = webhooks.list_webhooks(ctx)
    if as_json:
        print_as(list[WebhookOut], found)
        return
    progress = {each.webhook: each for each in delivery_log.progress(ctx)}
    columns = columns_of(_FIELDS, "id", "url", "types", "state", "description")
    told: Columns[Webhook] = {name: _of(progress, read) for name, read in _PROGRESS.items()}
    print_table({**columns, **told}, found)


@webhook.command()
@_webhook
@as_json_option
def show(webhook_id: str, as_json: bool) -> None:
    """Show one webhook, and how far it was told."""
    ctx = open_database()
    found = webhooks.get(ctx, webhook_id)
    (progress,) = delivery_log.progress(ctx, webhook_id)
    if as_json:
        print_as(WebhookShown, Shown(found, progress=progress))
    else:
        print_fields({**_FIELDS, **{name: _fixed(read(progress)) for name, read in _PROGRESS.items()}}, found)


@webhook.command()
@click.argument("url")
@_wishes
@dry_run_option
@as_json_option
def create(url: str, dry_run: bool, as_json: bool, **wishes: Any) -> None:
    """Subscribe a URL to the events from now on. Its secret is shown this once."""
    body = checked(WebhookIn, wanted(url, **wishes))
    found = webhooks.create(open_database(), body.value(), dry_run=dry_run)
    _print_secret(found, as_json, dry_run)


@webhook.command()
@_webhook
@click.option("--url", help="Another URL.")
@_wishes
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice([*_LISTS, "batch"]),
    help="Take all types, subjects, networks or subnets; send no batches.",
)
@dry_run_option
@as_json_option
def update(
    webhook_id: str, url: str | None, clear: tuple[str, ...], dry_run: bool, as_json: bool, **wishes: Any
) -> None:
    """Change what is named; the rest stays.

    It holds for all that is not delivered yet."""
    cleared = {name: None if name == "batch" else () for name in clear}
    body = checked(WebhookPatch, {**wanted(url, **wishes), **cleared})
    _print(webhooks.change(open_database(), webhook_id, body.values(), dry_run=dry_run), as_json, dry_run)


@webhook.command()
@_webhook
@dry_run_option
@as_json_option
def pause(webhook_id: str, dry_run: bool, as_json: bool) -> None:
    """Send nothing until it is resumed.

    What happens meanwhile is kept for then."""
    _print(webhooks.pause(open_database(), webhook_id, dry_run=dry_run), as_json, dry_run)


@webhook.command()
@_webhook
@dry_run_option
@as_json_option
def resume(webhook_id: str, dry_run: bool, as_json: bool) -> None:
    """Go on where it was paused.

    Or disabled, since its endpoint was gone."""
    _print(webhooks.resume(open_database(), webhook_id, dry_run=dry_run), as_json, dry_run)


@webhook.command()
@_webhook
@click.option(
    "--overlap", "overlap_s", type=int, default=24 * 3600, show_default=True, metavar="SECONDS",
    help="For so long the secret before signs as well.",
)  # fmt: skip
@dry_run_option
@as_json_option
def rotate(webhook_id: str, overlap_s: int, dry_run: bool, as_json: bool) -> None:
    """Draw a new secret, which is shown this once."""
    body = checked(RotationIn, {"overlap_s": overlap_s})
    found = webhooks.rotate_secret(open_database(), webhook_id, overlap_s=body.overlap_s, dry_run=dry_run)
    _print_secret(found, as_json, dry_run)


@webhook.command()
@_webhook
@as_json_option
@click.pass_context
def test(context: click.Context, webhook_id: str, as_json: bool) -> None:
    """Send a test event now, and say what came of it.

    Its type is webhook.test. Ends with 1 when it was not taken."""
    found = webhooks.test(open_database(), webhook_id)
    if as_json:
        print_as(TrialOut, found)
    else:
        print_fields(_TRIAL, found)
    if not found.delivered:
        context.exit(1)


@webhook.command()
@_webhook
@click.option("--id", "ids", multiple=True, help="The event of this id; may be repeated.")
@click.option("--since", metavar="INSTANT", help="What was stored then or later, like 2030-01-31T12:00:00Z.")
@click.option("--until", metavar="INSTANT", help="What was stored before.")
@click.option("--after-position", type=int, help="What came behind this position.")
@click.option("--until-position", type=int, help="What came up to this position.")
@click.option("--dead", is_flag=True, help="What was given up.")
@dry_run_option
@as_json_option
def replay(webhook_id: str, dry_run: bool, as_json: bool, **which: Any) -> None:
    """Send events again.

    Those for which all that is given holds, up to 100,000 a call."""
    body = checked(ReplayIn, {name: value for name, value in which.items() if value is not None})
    found: Replayed = delivery_log.replay(open_database(), webhook_id, **body.conditions(), dry_run=dry_run)
    if as_json:
        print_as(ReplayedOut, found)
        return
    print_fields({"events": lambda each: each.events, "more after": lambda each: each.more_after}, found)
    note_dry_run(dry_run)


@webhook.command()
@_webhook
@dry_run_option
def delete(webhook_id: str, dry_run: bool) -> None:
    """End a subscription; what was not delivered yet never is."""
    webhooks.delete_webhook(open_database(), webhook_id, dry_run=dry_run)
    note_dry_run(dry_run)


@webhook.command("deliveries")
@_webhook
@click.option("--state", type=click.Choice(["waiting", "delivered", "dead"]), help="Only those in this state.")
@_limit
@as_json_option
def list_deliveries(webhook_id: str, state: Any, limit: int, as_json: bool) -> None:
    """Show what became of its events, the latest first."""
    found = delivery_log.list_deliveries(open_database(), webhook_id, limit=limit, state=state)
    if as_json:
        print_as(list[DeliveryOut], found)
    else:
        print_table(_DELIVERIES, found)


@webhook.command("attempts")
@_webhook
@_limit
@as_json_option
def list_attempts(webhook_id: str, limit: int, as_json: bool) -> None:
    """Show the last requests to its endpoint, the latest first."""
    found = delivery_log.list_attempts(open_database(), webhook_id, limit=limit)
    if as_json:
        print_as(list[AttemptOut], found)
    else:
        print_table(_ATTEMPTS, found)


@webhook.command("listen")
@click.option(
    "--bind", default="127.0.0.1:9000", show_default=True, metavar="HOST:PORT", help="Where to listen; port 0 for any."
)
@click.option("--secret-file", type=click.File("r"), help="The secret, whsec_…, of the webhook that is to come here.")
@click.option("--subscribe", is_flag=True, help="Make a webhook for it, and delete that in the end.")
@click.option("--url", help="With --subscribe: the URL under which the control plane reaches it.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@_wishes
@as_json_option
def listen_command(
    bind: str, secret_file: Any, subscribe: bool, url: str | None, count: int | None, as_json: bool, **wishes: Any
) -> None:
    """Receive webhooks here and print them, until Ctrl-C.

    Their signatures are verified. With --json a line of JSON for each event.
    """
    if subscribe == (secret_file is not None):
        raise click.UsageError("Give either --secret-file, or --subscribe.")

    def make(reached_at: str) -> tuple[str, Callable[[], None]]:
        ctx = open_database()
        made = webhooks.create(ctx, checked(WebhookIn, wanted(url or reached_at, **wishes)).value())
        note(f"Webhook {made.id} sends to {made.url}.")
        return made.secrets[0], lambda: webhooks.delete_webhook(ctx, made.id)

    def given(_: str) -> tuple[str, Callable[[], None]]:
        return secret_file.read().strip(), lambda: None

    listen(bind, make if subscribe else given, as_json=as_json, count=count)


def _of(progress: Mapping[str, Progress], read: Callable[[Progress], object]) -> Callable[[Webhook], object]:
    return lambda each: read(progress[each.id]) if each.id in progress else None


def _fixed(value: object) -> Callable[[Webhook], object]:
    return lambda _: value


def _print(found: Webhook, as_json: bool, dry_run: bool) -> None:
    if as_json:
        print_as(WebhookOut, found)
    else:
        print_fields(_FIELDS, found)
        note_dry_run(dry_run)


def _print_secret(found: Webhook, as_json: bool, dry_run: bool) -> None:
    if as_json:
        print_as(WebhookSecret, Shown(found, secret=found.secrets[0]))
    else:
        print_fields({**_FIELDS, "secret": lambda each: each.secrets[0]}, found)
        note_dry_run(dry_run)
