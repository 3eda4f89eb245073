"""What goes to a webhook, how it is signed, and where it may go: pure.

Sources: CloudEvents 1.0 and its JSON event format; the CloudEvents extension "Sequence"; Standard Webhooks, "Signature
scheme".
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable
from urllib.parse import urlsplit

from netaddr import IPAddress, IPNetwork

from leasehold.domain.addresses import parse_cidr
from leasehold.domain.values import Event
from leasehold.errors import FieldInvalid

_MARK = "whsec_"
_SEQUENCE_DIGITS = 19  # of the largest 64-bit integer


def secret_of(key: bytes) -> str:
    """A webhook's secret as its receiver is to be given it."""
    return _MARK + base64.b64encode(key).decode()


def signature(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature` for a message that is sent at `timestamp_s`, seconds since the Unix epoch."""
    key = base64.b64decode(secret.removeprefix(_MARK))
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def cloud_event(event: Event, source: str) -> bytes:
    """The event in CloudEvents' structured JSON. `sequence` compares as text, and counts within the subject."""
    return json.dumps(
        {
            "specversion": "1.0",
            "id": event.id,
            "source": source,
            "type": event.type,
            "subject": event.subject,
            "time": event.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "sequence": str(event.sequence).zfill(_SEQUENCE_DIGITS),
            "datacontenttype": "application/json",
            "data": event.data,
        },
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode()


def require_url(url: str) -> None:
    """Raises FieldInvalid for what is no http or https URL without user, password and fragment."""
    try:
        parts = urlsplit(url)
        is_plain = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
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

    Whoever may subscribe must not reach by way of us what listens only here, or on this link.
    """
    plain = address.ipv4() if address.is_ipv4_mapped() else address
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
