"""Webhooks told of events over real connections."""

import base64
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from events.post import Post, failing, numbers, until
from events.receiver import TAKEN, Answer, Receiver, unused_port
from leasehold.domain.values import WebhookSpec
from leasehold.errors import FieldInvalid, WebhookNotFound
from leasehold.service import delivery_log, events, webhooks
from leasehold.worker import Worker

# ---- what arrives


def test_an_event_arrives_signed_as_a_cloud_event(post: Post, receiver: Receiver) -> None:
    post.subscribe(receiver)
    post.start()
    post.tell("subnets/7/addresses/192.0.2.10", 1)
    until(lambda: receiver.taken, "the event arrived")
    (event,) = receiver.taken
    stored = events.list_events(post.ctx, limit=1)[0]
    assert event == {
        "specversion": "1.0",
        "id": stored.id,
        "source": webhooks.source(post.ctx),
        "type": "lease.assigned",
        "subject": "subnets/7/addresses/192.0.2.10",
        "time": stored.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "sequence": "0000000000000000001",
        "datacontenttype": "application/json",
        "data": {"number": 1},
    }
    assert receiver.headers[0]["Content-Type"] == "application/cloudevents+json"


def test_source_is_of_this_database(post: Post) -> None:
    assert uuid.UUID(webhooks.source(post.ctx).removeprefix("urn:uuid:"))


def test_a_secret_is_32_octets(post: Post, receiver: Receiver) -> None:
    secret = post.subscribe(receiver).secrets[0]
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32


def test_each_event_arrives_once_and_in_order(post: Post, receiver: Receiver) -> None:
    post.subscribe(receiver)
    post.start()
    post.tell("a", *range(250))
    until(lambda: len(receiver.taken) >= 250, "all events arrived")
    assert numbers(receiver.taken) == list(range(250))


def test_only_the_types_that_were_asked_for_arrive(post: Post, receiver: Receiver) -> None:
    webhook = post.subscribe(receiver, "lease.declined")
    post.start()
    post.tell("a", 1)
    post.tell("a", 2, kind="lease.declined")
    until(lambda: receiver.taken, "an event arrived")
    until(lambda: post.states(webhook) == ["delivered"], "it is known as delivered")
    assert numbers(receiver.taken) == [2]


def test_events_from_before_the_subscription_do_not_arrive(post: Post, receiver: Receiver) -> None:
    post.tell("a", 1)
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("a", 2)
    until(lambda: post.states(webhook) == ["delivered"], "an event was delivered")
    assert numbers(receiver.taken) == [2]


def test_each_webhook_has_its_own_secret_and_message_ids(post: Post, receiver: Receiver) -> None:
    post.subscribe(receiver)
    post.start()
    with Receiver() as other:
        post.subscribe(other)
        post.tell("a", 1)
        until(lambda: receiver.taken and other.taken, "both were told")
    assert other.unsigned == []
    assert receiver.requests[0][0] != other.requests[0][0]


def test_a_worker_that_begins_later_delivers_what_was_missed(post: Post, receiver: Receiver) -> None:
    post.subscribe(receiver)
    post.tell("a", 1, 2)
    post.start()
    until(lambda: numbers(receiver.taken) == [1, 2], "both events arrived")


def test_what_was_delivered_is_not_sent_again_after_a_restart(post: Post, receiver: Receiver) -> None:
    post.subscribe(receiver)
    post.start()
    post.tell("a", 1)
    until(lambda: receiver.taken, "the first event arrived")
    post.stop()
    post.start()
    post.tell("a", 2)
    until(lambda: len(receiver.taken) > 1, "the second event arrived")
    assert numbers(receiver.taken) == [1, 2]


def test_a_webhook_that_is_deleted_is_told_no_more(post: Post, receiver: Receiver) -> None:
    webhook = post.subscribe(receiver)
    post.start()
    with Receiver() as other:
        post.subscribe(other)
        webhooks.delete_webhook(post.ctx, webhook.id)
        post.tell("a", 1)
        until(lambda: other.taken, "the other was told")
    assert receiver.requests == []


# ---- failures


def test_a_failed_event_is_sent_again_under_the_same_id(post: Post, receiver: Receiver) -> None:
    answers: Iterator[Answer] = iter([(500, {}), (503, {})])
    receiver.answer = lambda _: next(answers, TAKEN)
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("a", 1)
    until(lambda: post.states(webhook) == ["delivered"], "it was delivered")
    assert len(receiver.requests) == 3
    assert len({message_id for message_id, _ in receiver.requests}) == 1


def test_a_receiver_that_is_not_there_yet(post: Post, receiver: Receiver) -> None:
    webhook = webhooks.create(post.ctx, WebhookSpec(url=f"http://127.0.0.1:{unused_port()}/"))
    post.start()
    post.tell("a", 1)
    until(lambda: "waiting" in post.states(webhook), "the event waits")
    (delivery,) = delivery_log.list_deliveries(post.ctx, webhook.id, limit=10)
    assert delivery.last_status is None
    assert "no connection to 127.0.0.1" in str(delivery.last_error)


def test_a_subject_waits_for_its_first_event(post: Post, receiver: Receiver) -> None:
    receiver.answer = failing("stuck")
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("stuck", 1)
    until(lambda: post.states(webhook) == ["waiting"], "the first event waits")
    post.tell("stuck", 2)
    post.tell("well", 3)
    until(lambda: post.states(webhook) == ["waiting", "waiting", "delivered"], "the other subject's event arrived")
    receiver.answer = lambda _: TAKEN
    until(lambda: numbers(receiver.taken, "stuck") == [1, 2], "they arrived in order")
    assert [each["data"]["number"] for _, each in receiver.requests].count(2) == 1


def test_a_dead_endpoint_delays_no_other(post: Post, receiver: Receiver) -> None:
    for _ in range(3):
        webhooks.create(post.ctx, WebhookSpec(url=f"http://127.0.0.1:{unused_port()}/"))
    post.subscribe(receiver)
    post.start()
    post.tell("a", *range(50))
    until(lambda: numbers(receiver.taken) == list(range(50)), "all events arrived")


def test_an_endpoint_that_is_down_is_not_asked_for_each_event(post: Post, receiver: Receiver) -> None:
    receiver.answer = lambda _: (500, {})
    webhook = post.subscribe(receiver)
    post.start()
    for number in range(100):
        post.tell(f"subject-{number}", number)
    until(lambda: len(receiver.requests) >= 5, "it was tried repeatedly")
    receiver.answer = lambda _: TAKEN
    until(lambda: len(receiver.taken) == 100, "all arrived")
    assert len(receiver.requests) < 120
    until(lambda: post.states(webhook) == ["delivered"] * 100, "all are known as delivered")


@pytest.mark.parametrize("as_date", [False, True])
def test_an_endpoint_that_asks_for_time_gets_it(post: Post, receiver: Receiver, as_date: bool) -> None:
    instant = format_datetime(datetime.now(UTC) + timedelta(seconds=3000), usegmt=True)
    receiver.answer = lambda _: (429, {"Retry-After": instant if as_date else "3000"})
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("a", 1)
    until(lambda: post.states(webhook) == ["waiting"], "the event waits")
    (delivery,) = delivery_log.list_deliveries(post.ctx, webhook.id, limit=10)
    assert timedelta(seconds=2900) < delivery.due_at - post.clock() < timedelta(seconds=3001)


def test_no_endpoint_can_ask_for_days(post: Post, receiver: Receiver) -> None:
    receiver.answer = lambda _: (503, {"Retry-After": "999999"})
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("a", 1)
    until(lambda: post.states(webhook) == ["waiting"], "the event waits")
    (delivery,) = delivery_log.list_deliveries(post.ctx, webhook.id, limit=10)
    assert delivery.due_at - post.clock() <= timedelta(hours=1)


def test_gone_disables_the_webhook(post: Post, receiver: Receiver) -> None:
    receiver.answer = lambda _: (410, {})
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("a", 1, 2, 3)
    until(lambda: webhooks.get(post.ctx, webhook.id).state == "disabled", "it is disabled")
    with Receiver() as other:
        post.subscribe(other)
        post.tell("b", 4)
        until(lambda: other.taken, "the other was told")
    assert len(receiver.requests) == 1


def test_an_event_that_fails_for_too_long_becomes_a_dead_letter(post: Post, receiver: Receiver) -> None:
    receiver.answer = failing("stuck")
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("stuck", 1)
    until(lambda: post.states(webhook) == ["waiting"], "the event waits")
    post.clock.ahead = timedelta(seconds=post.ctx.settings.webhook_give_up_s)
    until(lambda: post.states(webhook) == ["dead"], "it is a dead letter")
    post.tell("stuck", 2)
    receiver.answer = lambda _: TAKEN
    until(lambda: numbers(receiver.taken) == [2], "the next event of the subject arrived")


def test_events_that_wait_behind_a_dead_endpoint_become_dead_letters(post: Post, receiver: Receiver) -> None:
    receiver.answer = lambda _: (500, {})
    webhook = post.subscribe(receiver)
    post.start()
    for number in range(50):
        post.tell(f"subject-{number}", number)
    until(lambda: len(receiver.requests) >= 3, "the endpoint counts as down")
    post.clock.ahead = timedelta(seconds=post.ctx.settings.webhook_give_up_s)
    until(lambda: post.states(webhook).count("dead") >= 45, "most are dead letters")
    assert len(receiver.requests) < 50


# ---- where it may go


@pytest.mark.parametrize("answer", [(302, {"Location": "/elsewhere"}), (307, {"Location": "http://127.0.0.1/"})])
def test_redirects_are_not_followed(post: Post, receiver: Receiver, answer: Answer) -> None:
    receiver.answer = lambda _: answer
    webhook = post.subscribe(receiver)
    post.start()
    post.tell("a", 1)
    until(lambda: post.states(webhook) == ["waiting"], "the event waits")
    (delivery,) = delivery_log.list_deliveries(post.ctx, webhook.id, limit=10)
    assert (delivery.last_status, delivery.last_error) == (
        answer[0],
        f"HTTP status {answer[0]}: a redirect, which is not followed",
    )


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0", "0x7f000001"])
def test_loopback_is_refused_unless_it_is_allowed(post: Post, receiver: Receiver, name: str) -> None:
    post.ctx = replace(post.ctx, settings=replace(post.ctx.settings, webhook_allowed_networks=""))
    webhook = webhooks.create(post.ctx, WebhookSpec(url=f"http://{name}:{receiver.port}/"))
    post.start()
    post.tell("a", 1)
    until(lambda: post.states(webhook) == ["waiting"], "the event waits")
    (delivery,) = delivery_log.list_deliveries(post.ctx, webhook.id, limit=10)
    assert "must not be sent to" in str(delivery.last_error)
    assert receiver.requests == []
    assert receiver.unsigned == []


def test_a_name_is_sent_as_host(post: Post, receiver: Receiver) -> None:
    webhook = webhooks.create(post.ctx, WebhookSpec(url=f"http://localhost:{receiver.port}/"))
    (receiver.secret,) = webhook.secrets
    post.ctx = replace(post.ctx, settings=replace(post.ctx.settings, webhook_allowed_networks="127.0.0.0/8, ::1/128"))
    post.start()
    post.tell("a", 1)
    until(lambda: receiver.taken, "the event arrived")
    assert receiver.headers[0]["Host"] == f"localhost:{receiver.port}"


@pytest.mark.parametrize(("certified", "arrives"), [("localhost", True), ("elsewhere.example", False)])
def test_a_certificate_must_be_for_the_name(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certified: str, arrives: bool
) -> None:
    """Though the connection goes to an address."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", f"/CN={certified}",
         "-addext", f"subjectAltName=DNS:{certified}", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    allowed = replace(post.ctx.settings, webhook_allowed_networks="127.0.0.0/8, ::1/128")
    post.ctx = replace(post.ctx, settings=allowed)
    with Receiver(tls) as receiver:
        webhook = webhooks.create(post.ctx, WebhookSpec(url=f"https://localhost:{receiver.port}/"))
        (receiver.secret,) = webhook.secrets
        post.start()
        post.tell("a", 1)
        until(lambda: post.states(webhook) == ["delivered" if arrives else "waiting"], "the event arrived, or not")
        assert len(receiver.taken) == arrives


def test_a_name_that_does_not_resolve(post: Post) -> None:
    webhook = webhooks.create(post.ctx, WebhookSpec(url="http://nowhere.invalid/"))
    post.start()
    post.tell("a", 1)
    until(lambda: post.states(webhook) == ["waiting"], "the event waits")
    (delivery,) = delivery_log.list_deliveries(post.ctx, webhook.id, limit=10)
    assert "nowhere.invalid cannot be resolved" in str(delivery.last_error)


def test_allowed_networks_that_are_none_stop_the_worker(post: Post) -> None:
    ctx = replace(post.ctx, settings=replace(post.ctx.settings, webhook_allowed_networks="10.0.0.0/8,all"))
    with pytest.raises(FieldInvalid, match="webhook_allowed_networks: 'all'"):
        Worker(ctx)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://monitoring.example/",
        "monitoring.example",
        "http:///path",
        "http://",
        "http://user@monitoring.example/",
        "http://user:password@monitoring.example/",
        "https://monitoring.example/#part",
        "http://monitoring.example:99999/",
        "http://[::1/",
        "",
    ],
)
def test_a_url_that_is_none_is_refused(post: Post, url: str) -> None:
    with pytest.raises(FieldInvalid, match="url"):
        webhooks.create(post.ctx, WebhookSpec(url=url))


def test_an_unknown_webhook_is_named(post: Post) -> None:
    with pytest.raises(WebhookNotFound, match="w-1"):
        webhooks.get(post.ctx, "w-1")
