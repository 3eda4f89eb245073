"""What a subscription asks for, how it changes, and what is sent again, over real connections."""

from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from events.post import Post, failing, numbers, until
from events.receiver import TAKEN, Receiver, unused_port
from leasehold.domain.values import Batch, WebhookSpec
from leasehold.errors import FieldInvalid, WebhookNotFound
from leasehold.service import deliveries, delivery_log, events, webhooks
from leasehold.service.context import Context

# ---- filters

HAPPENED: list[tuple[str, str, dict[str, object]]] = [
    ("lease.assigned", "subnets/7/addresses/192.0.2.1", {"network": "blue", "subnet": 7}),
    ("lease.assigned", "subnets/8/addresses/192.0.2.1", {"network": "red", "subnet": 8}),
    ("lease.declined", "subnets/7/addresses/192.0.2.2", {"network": "blue", "subnet": 7}),
    ("mac_pool.low", "mac-pools/default", {"subnet": "none", "network": None}),
    ("server.started", "hosts/a/servers", {}),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"types": ("*",)}, [1, 2, 3, 4, 5]),
        ({"types": ("lease.*",)}, [1, 2, 3]),
        ({"types": ("lease.declined",)}, [3]),
        ({"types": ("lease.declined", "server.*")}, [3, 5]),
        ({"subjects": ("subnets/7/addresses/192.0.2.1",)}, [1]),
        ({"subjects": ("subnets/7/*",)}, [1, 3]),
        ({"subjects": ("*/addresses/*",)}, [1, 2, 3]),
        ({"subjects": ("Subnets/7/*",)}, []),
        ({"subjects": ("subnets/?/*", "subnets/[7]/*", "subnets/_/*", "subnets/%")}, []),
        ({"subjects": ("subnets/7/*", "hosts/*")}, [1, 3, 5]),
        ({"networks": ("blue",)}, [1, 3]),
        ({"networks": ("blue", "red")}, [1, 2, 3]),
        ({"subnets": (8,)}, [2]),
        ({"types": ("lease.assigned",), "networks": ("blue",), "subnets": (7,)}, [1]),
        ({"types": ("lease.declined",), "subnets": (8,)}, []),
    ],
)
def test_only_what_fits_is_told(ctx: Context, wanted: dict[str, Any], found: list[int]) -> None:
    webhook = webhooks.create(ctx, WebhookSpec(url="http://192.0.2.80/", **wanted))
    with ctx.db.write() as connection:
        for number, (kind, subject, data) in enumerate(HAPPENED, start=1):
            fields: dict[str, object] = {"number": number, **data}
            events.emit(connection, ctx.now_ms(), kind, subject, fields)
    told = deliveries.backlog(ctx, webhook.id, "urn:x", 0, 100, revision=None)
    assert [each.position for each in told.fresh] == found
    assert told.looked_to == 5
    deliveries.record(ctx, webhook.id, told.looked_to)
    listed = delivery_log.list_deliveries(ctx, webhook.id, limit=100)
    assert [each.event.position for each in reversed(listed)] == found


@pytest.mark.parametrize(
    "wanted",
    [
        {"types": ("lease",), "url": "http://192.0.2.80/\r\nX-Evil: 1"},
        {"types": ("lease.*.more",)},
        {"types": ("*.assigned",)},
        {"types": ("",)},
        {"types": ("lease.asigned",)},
        {"types": ("leas_.*",)},
        {"subjects": ("",)},
        {"subjects": ("with space",)},
        {"batch": Batch(events=0)},
        {"batch": Batch(events=1, octets=2**40)},
        {"concurrency": 0},
        {"concurrency": 17},
    ],
)
def test_what_cannot_be_is_refused(post: Post, wanted: dict[str, Any]) -> None:
    with pytest.raises(FieldInvalid):
        webhooks.create(post.ctx, WebhookSpec(**{"url": "http://192.0.2.80/", **wanted}))


# ---- batches


def test_batches_are_signed_json_batches(post: Post, receiver: Receiver) -> None:
    post.subscribe(receiver, batch=Batch(events=40))
    post.tell("a", *range(100))
    post.start()
    until(lambda: len(receiver.taken) == 100, "all events arrived")
    assert numbers(receiver.taken) == list(range(100))
    assert receiver.batches == [40, 40, 20]
    assert receiver.headers[0]["Content-Type"] == "application/cloudevents-batch+json"


def test_a_batch_is_not_larger_than_it_may_be(post: Post, receiver: Receiver) -> None:
    post.subscribe(receiver, batch=Batch(events=1000, octets=2000))
    post.tell("a", *range(20), text="x" * 300)
    post.tell("b", 20, text="x" * 5000)
    post.start()
    until(lambda: len(receiver.taken) == 21, "all events arrived")
    lengths = [int(each["Content-Length"]) for each in receiver.headers]
    assert max(lengths[:-1]) <= 2000
    assert max(receiver.batches) > 1
    assert receiver.batches[-1] == 1  # alone, since it does not fit with any other


# ---- several requests at once


def test_with_several_requests_at_once_each_subject_keeps_its_order(post: Post, receiver: Receiver) -> None:
    refused: list[int] = []

    def answer(event: dict[str, Any]) -> tuple[int, dict[str, str]]:
        # Every seventh is refused once.
        number = event["data"]["number"]
        if number % 7 == 0 and number not in refused:
            refused.append(number)
            return 500, {}
        return 204, {}

    receiver.answer = answer
    webhook = post.subscribe(receiver, concurrency=8)
    for number in range(200):
        post.tell(f"subject-{number % 20}", number)
    post.start()
    until(lambda: post.states(webhook) == ["delivered"] * 200, "all are delivered")
    assert sorted(numbers(receiver.taken)) == list(range(200))
    for subject in range(20):
        assert numbers(receiver.taken, f"subject-{subject}") == list(range(subject, 200, 20))


# ---- changes


def test_a_paused_webhook_is_told_nothing_until_it_is_resumed(post: Post, receiver: Receiver) -> None:
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("a", 1)
    until(lambda: receiver.taken, "the first event arrived")
    assert webhooks.pause(post.ctx, webhook.id).state == "paused"
    post.tell("a", 2)
    with Receiver() as other:
        post.subscribe(other)
        post.tell("b", 3)
        until(lambda: other.taken, "the other was told")
    assert numbers(receiver.taken) == [1]
    assert webhooks.resume(post.ctx, webhook.id).state == "active"
    until(lambda: numbers(receiver.taken) == [1, 2, 3], "it was told what it missed")


def test_pausing_and_resuming_at_once_leaves_it_active(post: Post, receiver: Receiver) -> None:
    webhook = post.subscribe(receiver)
    post.start()
    for number in range(20):
        post.tell("a", number)
        webhooks.pause(post.ctx, webhook.id)
        webhooks.resume(post.ctx, webhook.id)
    until(lambda: post.states(webhook) == ["delivered"] * 20, "all are delivered")
    assert list(dict.fromkeys(numbers(receiver.taken))) == list(range(20))


def test_a_disabled_webhook_goes_on_when_it_is_resumed(post: Post, receiver: Receiver) -> None:
    receiver.answer = lambda _: (410, {})
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("a", 1)
    until(lambda: webhooks.get(post.ctx, webhook.id).state == "disabled", "it is disabled")
    assert "410" in str(webhooks.get(post.ctx, webhook.id).state_reason)
    receiver.answer = lambda _: TAKEN
    assert webhooks.resume(post.ctx, webhook.id).state_reason is None
    until(lambda: numbers(receiver.taken) == [1], "the event arrived")


def test_a_new_url_and_new_filters_hold_from_the_next_event_on(post: Post, receiver: Receiver) -> None:
    webhook = webhooks.create(post.ctx, WebhookSpec(url=f"http://127.0.0.1:{unused_port()}/"))
    (receiver.secret,) = webhook.secrets
    post.start()
    post.tell("a", 1)
    until(lambda: post.states(webhook) == ["waiting"], "the event waits")
    webhooks.change(post.ctx, webhook.id, {"url": receiver.url, "types": ("lease.declined",)})
    post.tell("b", 2)
    post.tell("b", 3, kind="lease.declined")
    until(lambda: sorted(numbers(receiver.taken)) == [1, 3], "what waited arrived, and what fits now")
    assert webhooks.get(post.ctx, webhook.id).types == ("lease.declined",)


def test_a_change_of_filters_does_not_change_what_was_delivered(post: Post, receiver: Receiver) -> None:
    webhook = post.subscribe(receiver, "lease.assigned")
    post.start()
    post.tell("a", 1)
    post.tell("a", 2, kind="lease.declined")
    until(lambda: post.states(webhook) == ["delivered"], "the first was delivered")
    until(lambda: delivery_log.progress(post.ctx, webhook.id)[0].behind == 0, "the second was passed over")
    webhooks.change(post.ctx, webhook.id, {"types": ()})
    assert 2 not in [each.event.data["number"] for each in delivery_log.list_deliveries(post.ctx, webhook.id, limit=9)]


def test_a_change_that_cannot_be_changes_nothing(post: Post, receiver: Receiver) -> None:
    webhook = post.subscribe(receiver)
    with pytest.raises(FieldInvalid, match="url"):
        webhooks.change(post.ctx, webhook.id, {"description": "new", "url": "gopher://x/"})
    assert webhooks.get(post.ctx, webhook.id) == webhook


def test_after_a_rotation_both_secrets_sign_until_the_overlap_ends(post: Post, receiver: Receiver) -> None:
    webhook = post.subscribe(receiver)
    post.start()
    rotated = webhooks.rotate_secret(post.ctx, webhook.id, overlap_s=3600)
    assert rotated.secrets[1:] == webhook.secrets
    assert rotated.secrets[0] != webhook.secrets[0]
    post.tell("a", 1)
    until(lambda: receiver.taken, "the event arrived, signed with the old secret")
    assert len(receiver.headers[0]["webhook-signature"].split()) == 2
    receiver.secret = rotated.secrets[0]
    post.tell("a", 2)
    until(lambda: len(receiver.taken) == 2, "the event arrived, signed with the new one")
    post.clock.ahead = timedelta(hours=1)
    post.tell("a", 3)
    until(lambda: len(receiver.taken) == 3, "the event arrived")
    assert len(receiver.headers[2]["webhook-signature"].split()) == 1


def test_without_overlap_only_the_new_secret_signs(post: Post, receiver: Receiver) -> None:
    webhook = post.subscribe(receiver)
    (receiver.secret,) = webhooks.rotate_secret(post.ctx, webhook.id, overlap_s=0).secrets
    post.start()
    post.tell("a", 1)
    until(lambda: receiver.taken, "the event arrived")


# ---- tests


def test_a_test_says_what_the_endpoint_said(post: Post, receiver: Receiver) -> None:
    """Also of a webhook that is paused, and that wants something else; nothing is kept of it."""
    webhook = post.subscribe(receiver, "mac_pool.low")
    webhooks.pause(post.ctx, webhook.id)
    told = webhooks.test(post.ctx, webhook.id)
    assert (told.delivered, told.status, told.error) == (True, 204, None)
    (event,) = receiver.taken
    assert (event["type"], event["subject"]) == ("webhook.test", f"webhooks/{webhook.id}")
    assert events.list_events(post.ctx, limit=10) == []
    receiver.answer = lambda _: (500, {})
    told = webhooks.test(post.ctx, webhook.id)
    assert (told.delivered, told.status, told.error) == (False, 500, "HTTP status 500: an error")
    assert len(receiver.requests) == 2


def test_a_test_of_an_endpoint_that_is_not_there(post: Post) -> None:
    webhook = webhooks.create(post.ctx, WebhookSpec(url=f"http://127.0.0.1:{unused_port()}/"))
    told = webhooks.test(post.ctx, webhook.id)
    assert (told.delivered, told.status) == (False, None)
    assert "no connection to 127.0.0.1" in str(told.error)


def test_a_test_of_a_batching_webhook_is_a_batch(post: Post, receiver: Receiver) -> None:
    webhook = post.subscribe(receiver, batch=Batch(events=10))
    assert webhooks.test(post.ctx, webhook.id).delivered
    assert receiver.headers[0]["Content-Type"] == "application/cloudevents-batch+json"


# ---- again


@pytest.fixture
def told(post: Post, receiver: Receiver) -> str:
    """A webhook that was told of events 1 to 6."""
    webhook = post.subscribe(receiver)
    post.start()
    for number in range(1, 7):
        post.tell("a" if number % 2 else "b", number)
    until(lambda: post.states(webhook) == ["delivered"] * 6, "all are known as delivered")
    receiver.taken.clear()
    return webhook.id


def replayed(post: Post, webhook_id: str, receiver: Receiver, wanted: list[int], **which: Any) -> None:
    positions = {each.data["number"]: each.position for each in events.list_events(post.ctx, limit=100)}
    which = {name: positions.get(value, value) if "position" in name else value for name, value in which.items()}
    assert delivery_log.replay(post.ctx, webhook_id, **which).events == len(wanted)
    until(lambda: numbers(receiver.taken) == wanted, f"{wanted} arrived again")


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ({"after_position": 4}, [5, 6]),
        ({"after_position": 1, "until_position": 3}, [2, 3]),
        ({"until_position": 2}, [1, 2]),
        ({"after_position": 0}, [1, 2, 3, 4, 5, 6]),
        ({"dead": True}, []),
    ],
)
def test_positions_are_sent_again(
    post: Post, receiver: Receiver, told: str, which: dict[str, Any], wanted: list[int]
) -> None:
    replayed(post, told, receiver, wanted, **which)


def test_ids_are_sent_again(post: Post, receiver: Receiver, told: str) -> None:
    stored = {each.data["number"]: each.id for each in events.list_events(post.ctx, limit=100)}
    replayed(post, told, receiver, [2, 5], ids=[stored[5], stored[2], "not-an-event"])
    assert {event["id"] for event in receiver.taken} == {stored[2], stored[5]}


def test_a_span_of_time_is_sent_again(post: Post, receiver: Receiver, told: str) -> None:
    now = post.clock()
    post.clock.ahead = timedelta(hours=1)
    post.tell("a", 7, 8)
    until(lambda: numbers(receiver.taken) == [7, 8], "the new events arrived")
    until(lambda: delivery_log.progress(post.ctx, told)[0].behind == 0, "they are known as delivered")
    receiver.taken.clear()
    hour = timedelta(minutes=30)
    replayed(post, told, receiver, [7, 8], since=now + hour)
    receiver.taken.clear()
    replayed(post, told, receiver, [1, 2, 3, 4, 5, 6], until=now + hour)


def test_events_from_before_the_subscription_can_be_had(post: Post, receiver: Receiver) -> None:
    post.tell("a", 1, 2)
    webhook = post.subscribe(receiver)
    post.start()
    replayed(post, webhook.id, receiver, [1, 2], after_position=0)


def test_only_what_the_webhook_wants_is_sent_again(post: Post, receiver: Receiver) -> None:
    post.tell("a", 1)
    post.tell("a", 2, kind="lease.declined")
    webhook = post.subscribe(receiver, "lease.declined")
    post.start()
    replayed(post, webhook.id, receiver, [2], after_position=0)


def test_dead_letters_are_sent_again(post: Post, receiver: Receiver) -> None:
    receiver.answer = failing("stuck")
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("stuck", 1)
    post.tell("well", 2)
    until(lambda: post.states(webhook) == ["waiting", "delivered"], "one waits")
    post.clock.ahead = timedelta(seconds=post.ctx.settings.webhook_give_up_s)
    until(lambda: post.states(webhook) == ["dead", "delivered"], "it is a dead letter")
    assert delivery_log.progress(post.ctx, webhook.id)[0].dead == 1
    receiver.answer = lambda _: TAKEN
    receiver.taken.clear()
    replayed(post, webhook.id, receiver, [1], dead=True)
    until(lambda: post.states(webhook) == ["delivered", "delivered"], "it is known as delivered")


def test_a_replay_of_everything_there_ever_was_must_be_asked_for(post: Post, receiver: Receiver) -> None:
    webhook = post.subscribe(receiver)
    with pytest.raises(FieldInvalid, match="after_position"):
        delivery_log.replay(post.ctx, webhook.id)


# ---- what can be seen


def test_attempts_are_kept_with_what_came_of_them(post: Post, receiver: Receiver) -> None:
    receiver.answer = lambda _: (500, {})
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("a", 1)
    until(lambda: len(receiver.requests) == 2, "it was tried twice")
    receiver.answer = lambda _: TAKEN
    until(lambda: post.states(webhook) == ["delivered"], "it was delivered")
    until(lambda: len(delivery_log.list_attempts(post.ctx, webhook.id, limit=10)) > 2, "the last attempt is known")
    last, *failed = delivery_log.list_attempts(post.ctx, webhook.id, limit=10)
    assert (last.status, last.error, last.events, last.first_position, last.last_position) == (204, None, 1, 1, 1)
    assert {(each.status, each.error) for each in failed} == {(500, "HTTP status 500: an error")}
    (delivery,) = delivery_log.list_deliveries(post.ctx, webhook.id, limit=10)
    assert (delivery.attempts, delivery.last_status, delivery.last_error) == (len(failed) + 1, 204, None)
    assert delivery.last_duration_ms is not None
    assert delivery.last_at is not None
    (before,) = delivery_log.list_attempts(post.ctx, webhook.id, limit=1, before=last.id)
    assert before == failed[0]


def test_only_the_last_attempts_are_kept(ctx: Context) -> None:
    webhook = webhooks.create(ctx, WebhookSpec(url="http://192.0.2.80/"))
    tries = [deliveries.Try(0, 0, 1, number, number, 500, "no") for number in range(1_500)]
    deliveries.record(ctx, webhook.id, 0, tries=tries[:1_000])
    deliveries.record(ctx, webhook.id, 0, tries=tries[1_000:])
    kept = delivery_log.list_attempts(ctx, webhook.id, limit=2_000)
    assert [each.first_position for each in kept] == list(range(1_499, 499, -1))


def test_deliveries_are_listed_by_their_state(post: Post, receiver: Receiver) -> None:
    receiver.answer = failing("stuck")
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("stuck", 1)
    post.tell("well", 2)
    until(lambda: post.states(webhook) == ["waiting", "delivered"], "one waits, one was delivered")

    def listed(state: Any) -> list[object]:
        found = delivery_log.list_deliveries(post.ctx, webhook.id, limit=10, state=state)
        return [each.event.data["number"] for each in found]

    assert (listed("waiting"), listed("delivered"), listed("dead")) == ([1], [2], [])


def test_a_dry_run_changes_nothing(post: Post, receiver: Receiver, told: str) -> None:
    before = webhooks.get(post.ctx, told)
    assert webhooks.change(post.ctx, told, {"description": "x"}, dry_run=True).description == "x"
    assert webhooks.pause(post.ctx, told, dry_run=True).state == "paused"
    assert len(webhooks.rotate_secret(post.ctx, told, overlap_s=9, dry_run=True).secrets) == 2
    assert delivery_log.replay(post.ctx, told, after_position=0, dry_run=True).events == 6
    webhooks.delete_webhook(post.ctx, told, dry_run=True)
    webhooks.create(post.ctx, WebhookSpec(url="http://192.0.2.80/"), dry_run=True)
    assert webhooks.list_webhooks(post.ctx) == [before]
    assert delivery_log.progress(post.ctx, told)[0].waiting == 0


@pytest.mark.parametrize("call", [webhooks.pause, webhooks.resume, webhooks.test, webhooks.delete_webhook])
def test_an_unknown_webhook_is_named(post: Post, call: Any) -> None:
    with pytest.raises(WebhookNotFound, match="w-1"):
        call(post.ctx, "w-1")


def test_an_independent_verifier_takes_what_we_sign() -> None:
    """And ours what it signs."""
    from datetime import UTC, datetime

    from leasehold.domain.webhooks import fault_of, secret_of, signature

    secrets = [secret_of(b"k" * 32), secret_of(b"o" * 32)]
    now = datetime.now(UTC)
    seconds = int(now.timestamp())
    headers = {
        "webhook-id": "m",
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature(secrets, "m", seconds, b"{}"),
    }
    for secret in secrets:
        Verifier(secret).verify(b"{}", headers, json_parse=False)
        assert fault_of(secret, headers, b"{}", seconds) is None
        signed = {**headers, "webhook-signature": Verifier(secret).sign("m", now, "{}")}
        assert fault_of(secret, signed, b"{}", seconds) is None
    assert fault_of(secret_of(b"x" * 32), headers, b"{}", seconds) is not None
    assert fault_of(secrets[0], headers, b"{ }", seconds) is not None
    assert fault_of(secrets[0], headers, b"{}", seconds + 301) is not None
    assert fault_of(secrets[0], {}, b"{}", seconds) is not None
