"""What goes to a webhook, how it is signed, and where it may go: pure.

Sources: CloudEvents 1.0, its JSON event and batch formats; the CloudEvents extension "Sequence"; Standard Webhooks,
"Signature scheme" and "Webhook headers".
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from json.encoder import encode_basestring
from urllib.parse import urlsplit

from netaddr import IPAddress, IPNetwork

from leasehold.domain.addresses import parse_cidr
from leasehold.domain.event_types import EVENT_TYPES
from leasehold.domain.values import WebhookSpec
from leasehold.errors import FieldInvalid

SINGLE_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"
MOST_BATCH_EVENTS = 10_000
MOST_BATCH_OCTETS = 16 * 2**20
MOST_CONCURRENCY = 16

TYPE_PATTERN = r"(\*|[a-z_]+(\.[a-z_]+)*(\.\*)?)"
"""`lease.assigned`, `lease.*`, or `*`."""
SUBJECT_PATTERN = r"[!-~]{1,255}"
"""A subject; `*` stands for any characters, or none."""

_MARK = "whsec_"
_SEQUENCE_DIGITS = 19  # of the largest 64-bit integer
_TOLERANCE_S = 300
_6TO4 = IPNetwork("2002::/16")


def secret_of(key: bytes) -> str:
    """A webhook's secret as its receiver is to be given it."""
    return _MARK + base64.b64encode(key).decode()


def key_of(secret: str) -> bytes:
    """The key in a secret. Raises FieldInvalid for what is none."""
    try:
        return base64.b64decode(secret.removeprefix(_MARK), validate=True)
    except (binascii.Error, ValueError):
        raise FieldInvalid(
            "secret: this is not a webhook's secret. It is whsec_ and base64, as it was shown when it was made.",
            field="secret",
        ) from None


def signature(secrets: Iterable[str], message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature` for a message that is sent at `timestamp_s`, seconds since the Unix epoch: one
    signature for each secret, so that a receiver that knows only one of them is content."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    digests = (hmac.digest(key_of(secret), signed, hashlib.sha256) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def fault_of(secret: str, headers: Mapping[str, str], body: bytes, now_s: float) -> str | None:
    """Why a message must not be believed, or None; `headers` by their names in lower case."""
    message_id, timestamp = headers.get("webhook-id"), headers.get("webhook-timestamp")
    given = headers.get("webhook-signature", "").split()
    if not message_id or not timestamp or not given:
        return "it lacks one of webhook-id, webhook-timestamp and webhook-signature"
    if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(int(timestamp) - now_s) > _TOLERANCE_S:
        return f"webhook-timestamp {timestamp!r} is not within {_TOLERANCE_S} s of this machine's clock"
    wanted = signature([secret], message_id, int(timestamp), body)
    if not any(hmac.compare_digest(wanted.encode(), each.encode()) for each in given):
        return "no signature fits the secret"
    return None


def cloud_event(*, source: str, id: str, type: str, subject: str, time_ms: int, sequence: int, data: str) -> str:
    """An event in CloudEvents' structured JSON; `data` is JSON already. `sequence` compares as text, and counts within
    the subject."""
    return (
        f'{{"specversion":"1.0","id":{encode_basestring(id)},"source":{encode_basestring(source)},'
        f'"type":{encode_basestring(type)},"subject":{encode_basestring(subject)},"time":"{_instant(time_ms)}",'
        f'"sequence":"{sequence:0{_SEQUENCE_DIGITS}}","datacontenttype":"application/json","data":{data}}}'
    )


def _instant(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@dataclass(frozen=True)
class Message:
    """What one request carries: the same events of a webhook always under the same id."""

    id: str
    body: bytes
    media_type: str

    def headers(self, secrets: Iterable[str], timestamp_s: int) -> dict[str, str]:
        """The headers that make it a signed message, sent at `timestamp_s`, seconds since the Unix epoch."""
        return {
            "Content-Type": self.media_type,
            "webhook-id": self.id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature(secrets, self.id, timestamp_s, self.body),
        }


def message(webhook_id: str, positions: Sequence[int], texts: Sequence[str], *, as_batch: bool) -> Message:
    """Cloud events as one message: a JSON batch, or one event as it is."""
    if not as_batch:
        return Message(f"{webhook_id}-{positions[0]}", texts[0].encode(), SINGLE_TYPE)
    digest = hashlib.sha256(",".join(map(str, positions)).encode()).hexdigest()[:16]
    message_id = f"{webhook_id}-{positions[0]}-{positions[-1]}-{digest}"
    return Message(message_id, f"[{','.join(texts)}]".encode(), BATCH_TYPE)


def require_sound(spec: WebhookSpec) -> None:
    """Raises FieldInvalid that names the first field that cannot be."""
    require_url(spec.url)
    for field, patterns, rule, like in (
        ("types", spec.types, TYPE_PATTERN, "a type of events, or several like lease.* or *"),
        ("subjects", spec.subjects, SUBJECT_PATTERN, "a subject, in which * stands for anything, like subnets/7/*"),
    ):
        for pattern in patterns:
            if not re.fullmatch(rule, pattern, re.ASCII):
                raise FieldInvalid(f"{field}: {pattern!r} is not {like}.", field=field, value=pattern)
    for pattern in spec.types:
        if not any(fnmatchcase(each, pattern) for each in EVENT_TYPES):
            raise FieldInvalid(
                f"types: no event is of type {pattern!r}. The types are {', '.join(EVENT_TYPES)}.",
                field="types",
                value=pattern,
            )
    for field, value, most in (
        ("batch.events", spec.batch.events if spec.batch else 1, MOST_BATCH_EVENTS),
        ("batch.octets", spec.batch.octets if spec.batch else 1, MOST_BATCH_OCTETS),
        ("concurrency", spec.concurrency, MOST_CONCURRENCY),
    ):
        if not 1 <= value <= most:
            raise FieldInvalid(f"{field}: {value} is not from 1 to {most}.", field=field, value=value)


def require_url(url: str) -> None:
    """Raises FieldInvalid for what is no http or https URL without user, password and fragment."""
    try:
        parts = urlsplit(url)
        # urlsplit drops line breaks silently, which would go into a request line.
        is_plain = (
            re.fullmatch(r"[!-~]+", url) and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        )
    except ValueError:
        is_plain = False
    if not is_plain or "@" in parts.netloc or parts.fragment:
        raise FieldInvalid(
            f"url: {url!r} is not an http or https URL without user, password and fragment, "
            "like https://monitoring.example/leasehold.",
            field="url",
            value=url,
        )


def allowed_networks(text: str) -> tuple[IPNetwork, ...]:
    """CIDRs from a list with commas; raises FieldInvalid."""
    return tuple(parse_cidr(each.strip(), "webhook_allowed_networks") for each in text.split(",") if each.strip())


def refusal(address: IPAddress, *, is_own: bool, allowed: Iterable[IPNetwork]) -> str | None:
    """Why no webhook may go to this address, which `is_own` says is one of this machine's; None when it may.

    Whoever may subscribe must not reach by way of us what listens only here, or on this link. The IPv4 address in one
    of IPv6 counts as itself.
    """
    plain = address
    if address.is_ipv4_mapped():
        plain = address.ipv4()
    elif address in _6TO4:
        plain = IPAddress(int(address) >> 80 & 0xFFFFFFFF, 4)
    if any(plain in network for network in allowed):
        return None
    for is_so, what in (
        (plain.is_loopback(), "loopback"),
        (plain.is_link_local(), "link-local"),
        (plain.is_multicast(), "multicast"),
        (plain.is_reserved(), "unspecified or reserved"),
        (is_own, "this machine's own"),
    ):
        if is_so:
            return f"{address} is {what}, and not in LEASEHOLD_WEBHOOK_ALLOWED_NETWORKS"
    return None
