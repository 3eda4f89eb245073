"""The receiver of webhooks: what is not signed as Standard Webhooks says does not count."""

from datetime import UTC, datetime

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from lab import Lab
from lab.receiver import WebhookReceiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type": "lease.assigned", "id": "1"}'


@pytest.fixture(scope="module")
def receiver(module_lab: Lab) -> WebhookReceiver:
    receiver = module_lab.receiver()
    receiver.expect(SECRET)
    return receiver


def post(lab: Lab, receiver: WebhookReceiver, secret: str) -> int:
    """BODY, signed with a secret; the status of the answer."""
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", now, BODY.decode()),
    }
    return lab.control.within(lambda: httpx.post(receiver.url, content=BODY, headers=headers).status_code)


def test_a_signed_event_counts(module_lab: Lab, receiver: WebhookReceiver) -> None:
    before = len(receiver.events)
    assert post(module_lab, receiver, SECRET) == 204
    assert receiver.events[before:] == [{"type": "lease.assigned", "id": "1"}]


def test_an_event_signed_with_another_secret_is_refused(module_lab: Lab, receiver: WebhookReceiver) -> None:
    before = receiver.events
    assert post(module_lab, receiver, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA") == 401
    assert receiver.events == before
    assert "No matching signature" in receiver.refused[-1]


def test_an_event_answered_with_an_error_does_not_count(module_lab: Lab, receiver: WebhookReceiver) -> None:
    before = receiver.events
    receiver.answer_with(503)
    assert post(module_lab, receiver, SECRET) == 503
    assert receiver.events == before
