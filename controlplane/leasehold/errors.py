"""The error hierarchy: what went wrong, with a stable code and the facts. It knows nothing of HTTP or exit codes.

Edges choose numbers: the web layer has one table from the branches to a status, the CLI one to an exit code.
"""

from typing import ClassVar


class LeaseholdError(Exception):
    """Base of everything that a caller can be told.

    `str(error)` is one or two sentences that name what was wrong and what to do; `facts` are the same values for
    programs, JSON-ready; `code` is stable for ever.
    """

    code: ClassVar[str]

    def __init__(self, sentence: str, **facts: object) -> None:
        super().__init__(sentence)
        self.facts = facts


class Invalid(LeaseholdError):
    """The request itself is wrong, whatever the state."""

    code = "invalid"


class NotFound(LeaseholdError):
    """What was named does not exist."""

    code = "not-found"


class Conflict(LeaseholdError):
    """The request is sound, but the present state forbids it."""

    code = "conflict"


class Unavailable(LeaseholdError):
    """It may succeed by itself later. `retry_after_s` is a hint in seconds."""

    code = "unavailable"

    def __init__(self, sentence: str, *, retry_after_s: int = 5, **facts: object) -> None:
        super().__init__(sentence, **facts)
        self.retry_after_s = retry_after_s


class Refused(LeaseholdError):
    """A Kea server answered, and refused."""

    code = "refused-by-kea"


class Unauthenticated(LeaseholdError):
    """The caller did not prove who it is with a bearer token that is known here."""

    code = "unauthenticated"


class Forbidden(LeaseholdError):
    """The caller's role does not allow this. Facts: role, roles (that would)."""

    code = "forbidden"


# ---- Invalid


class FieldInvalid(Invalid):
    """A field has a value that is not of its kind. Facts: field, value."""

    code = "field-invalid"


class RangeInvalid(Invalid):
    """A range that is no range: ends before it begins, or holds addresses that must not be handed out."""

    code = "range-invalid"


class MacNotUnicast(Invalid):
    """A multicast or all-zero MAC cannot be a network card's own. Facts: field, mac."""

    code = "mac-not-unicast"


class MacPoolInvalid(Invalid):
    """A MAC pool without a name or without ranges. Facts: field, value."""

    code = "mac-pool-invalid"


class RangeNotUnicast(Invalid):
    """A range that holds multicast MACs, or the all-zero one. Facts: field, unicast (its sound parts)."""

    code = "range-not-unicast"


class DefaultPoolFixed(Invalid):
    """Which pool is the default changes by one explicit call only. Facts: field."""

    code = "default-pool-fixed"


class SubnetInvalid(Invalid):
    """A subnet whose parts do not fit each other. Facts: cidr, field, value."""

    code = "subnet-invalid"


class NoIpamService(Invalid):
    """An address is asked for, and the vNIC has no subnet, or its network has IPAM off. Facts: vnic, network, ip."""

    code = "no-ipam-service"


# ---- NotFound


class MacPoolNotFound(NotFound):
    """No MAC pool of this id."""

    code = "mac-pool-not-found"


class ScopeNotFound(NotFound):
    """No data center, cluster or VM pool of this id. Facts: kind, scope."""

    code = "scope-not-found"


class NetworkNotFound(NotFound):
    """No network of this id."""

    code = "network-not-found"


class SubnetNotFound(NotFound):
    """No subnet of this id."""

    code = "subnet-not-found"


class HostNotFound(NotFound):
    """No host of this id."""

    code = "host-not-found"


class ReservationNotFound(NotFound):
    """No address of the subnet is held there. Facts: ip, subnet."""

    code = "reservation-not-found"


class AddressUnknown(NotFound):
    """The address is promised to nobody, and was not lately."""

    code = "address-unknown"


class VnicNotFound(NotFound):
    """No vNIC of this id."""

    code = "vnic-not-found"


class WebhookNotFound(NotFound):
    """No webhook of this id."""

    code = "webhook-not-found"


class TokenNotFound(NotFound):
    """No token of this id."""

    code = "token-not-found"


# ---- Conflict


class NameTaken(Conflict):
    """The name belongs to another of its kind. Facts: name."""

    code = "name-taken"


class MacTaken(Conflict):
    """A MAC is in use where it must not be twice. Facts: mac, holders (vnic, vm, mac_pool)."""

    code = "mac-taken"


class MacPoolExhausted(Conflict):
    """The pool has fewer free MACs than wanted. Facts: mac_pool, wanted, free."""

    code = "mac-pool-exhausted"


class RangesOverlap(Conflict):
    """Two ranges of one pool or subnet share MACs. Facts: ranges."""

    code = "ranges-overlap"


class RangesOverlapPools(Conflict):
    """Ranges share MACs with other pools. Facts: overlaps (range, mac_pool, name, other_range)."""

    code = "ranges-overlap-pools"


class RangesOverlapSubnets(Conflict):
    """MACs would be tied to two subnets. Facts: overlaps (range, subnet, cidr, network, other_range)."""

    code = "ranges-overlap-subnets"


class DuplicatesInUse(Conflict):
    """The pool has MACs in use more than once. Facts: mac_pool, duplicates (mac, holders)."""

    code = "duplicates-in-use"


class WouldDuplicate(Conflict):
    """The change would put a MAC twice under a pool that allows no duplicates. Facts: duplicates (mac, holders)."""

    code = "would-duplicate"


class DefaultPoolKept(Conflict):
    """The default pool cannot be deleted or merged away. Facts: mac_pool."""

    code = "default-pool-kept"


class MacPoolInUse(Conflict):
    """The pool is assigned to scopes, or vNICs have MACs under its rules. Facts: mac_pool, scopes, vnics."""

    code = "mac-pool-in-use"


class ScopeInUse(Conflict):
    """The scope has scopes below it, or vNICs. Facts: scope, children, vnics."""

    code = "scope-in-use"


class MacsBad(Conflict):
    """An import has MACs that cannot be taken. Facts: bad (vnic, mac, reason, holders)."""

    code = "macs-bad"


class RevisionMismatch(Conflict):
    """Somebody else changed it since it was read. Facts: what, expected, revision."""

    code = "revision-mismatch"


class AddressTaken(Conflict):
    """The address is promised to another vNIC, draining or cooling. Facts: ip, subnet, state, holder."""

    code = "address-taken"


class AddressOutOfRange(Conflict):
    """The address is not one that the subnet hands out. Facts: ip, subnet."""

    code = "address-out-of-range"


class SubnetExhausted(Conflict):
    """Every address of the subnet's ranges is held, draining or cooling. Facts: subnet, held, draining, cooling,
    next_free_at (null while all wait for servers), waiting_for (hosts)."""

    code = "subnet-exhausted"


class SubnetRetiring(Conflict):
    """The subnet was renumbered, and hands nothing out any more. Facts: subnet, successor."""

    code = "subnet-retiring"


class MacReserved(Conflict):
    """The subnet already has a reservation for this MAC, of another vNIC. Facts: mac, subnet, ip, holder, vm."""

    code = "mac-reserved"


class SubnetOverlap(Conflict):
    """The CIDR overlaps with another subnet of the network. Facts: cidr, subnet, other_cidr."""

    code = "subnet-overlap"


class IdempotencyKeyReused(Conflict):
    """An Idempotency-Key came with another request before. Facts: key."""

    code = "idempotency-key-reused"


class InUse(Conflict):
    """It cannot go, or change so, while others depend on it. Facts: what depends on it."""

    code = "in-use"


class HostAnswers(Conflict):
    """A host that answers is not dead, and cannot be declared so. Facts: host, answered_at."""

    code = "host-answers"


class HostFenced(Conflict):
    """The host was declared dead, and counts again by itself once it is known to serve nothing. Facts: host."""

    code = "host-fenced"


# ---- Unavailable


class SubnetRecovering(Unavailable):
    """Hosts may still serve addresses that the database knows nothing of, as after a restore. Facts: subnet, hosts."""

    code = "subnet-recovering"


class NotConfirmed(Unavailable):
    """The reservation is promised, but not yet confirmed by the servers asked for. Facts: vnic, ip, mac, hosts,
    servers."""

    code = "not-confirmed"


class NoServer(Unavailable):
    """No IPAM server serves the network at present. Facts: network, vnic, ip, mac."""

    code = "no-server"


class HostUnreachable(Unavailable):
    """A host's control channel did not answer. Facts: host, url, reason."""

    code = "host-unreachable"


class DatabaseBusy(Unavailable):
    """The database did not let the change through in time."""

    code = "database-busy"


class DatabaseUnavailable(Unavailable):
    """The database cannot be opened, or is not at this release's schema."""

    code = "database-unavailable"


class ProcessUnwell(Unavailable):
    """A loop of this process ended that should turn, or stands still."""

    code = "process-unwell"


# ---- Refused


class KeaRefused(Refused):
    """Kea answered a command with an error. Facts: host, command, result, text."""

    code = "kea-refused"
