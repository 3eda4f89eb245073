"""What replication carries: parts of a subnet's reservation log, and the digest by which two sides compare."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from netaddr import IPAddress

from leasehold.domain.addresses import Mac

# By the hook's words: see its README, `leasehold-status`.
_LINK_FAULTS = {
    "down": "is down",
    "no-link": "has no link",
    "no-socket": "has no socket of Kea's: config-reload opens it",
}
_BEING_MENDED = "being mended"

EMPTY_DIGEST = "0" * 16
"""The digest of no reservations at all."""

Entry = tuple[Mac, IPAddress, str | None]
"""One reservation: the MAC, the address that it gets, and the hostname or None."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What happened to a subnet's reservations from revision `base` to `revision`, the last word on each MAC. With
    `from_epoch` it leads from there, of that epoch, to this epoch and revision, whichever they are."""

    subnet: int
    epoch: str
    base: int
    revision: int
    set: tuple[Entry, ...]
    unset: tuple[Mac, ...]
    from_epoch: str | None = None


def joined(batches: Sequence[Batch], base: int, most: int) -> Batch | None:
    """Those of a subnet's batches that follow one another from revision `base` on, up to `most` of them, as one; None
    where none begins there."""
    of_base = {batch.base: batch for batch in batches}
    chosen: list[Batch] = []
    while len(chosen) < most and base in of_base:
        chosen.append(of_base[base])
        base = chosen[-1].revision
    if not chosen:
        return None
    comes: dict[Mac, Entry] = {}
    goes: dict[Mac, None] = {}
    for batch in chosen:
        for mac in batch.unset:
            comes.pop(mac, None)
            goes[mac] = None
        for entry in batch.set:
            goes.pop(entry[0], None)
            comes[entry[0]] = entry
    return replace(chosen[0], revision=base, set=tuple(comes.values()), unset=tuple(goes))


@dataclass(frozen=True, kw_only=True)
class Resync:
    """All reservations of a subnet at one revision, in place of whatever the server has; `digest` is theirs."""

    subnet: int
    epoch: str
    revision: int
    digest: str
    reservations: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class SubnetState:
    """What a server has in force for a subnet. One that it has never heard of has epoch "" and revision 0."""

    subnet: int
    epoch: str
    revision: int
    count: int
    digest: str

    def is_of_another_history(self, epoch: str) -> bool:
        """True for reservations that were made in another history than that of `epoch`. Those without any were added on
        the server by hand."""
        return self.count > 0 and self.epoch not in ("", epoch, _between(epoch))


@dataclass(frozen=True, kw_only=True)
class HookStatus:
    """What the hook in a host's Kea says of itself.

    `boot` is another UUID for each process life of Kea; `managed` are the ids of the subnets in its configuration that
    carry our mark. `interfaces` are the host's that have an IPv4 address, and the word for what keeps guests from being
    heard there, None for nothing; None in place of them all where it does not tell. `last_sequence` is that of the last
    lease event of this boot that waits to be reported, or was; `reporting` whether it has somebody to report to.
    """

    host: str
    boot: str
    subnets: tuple[SubnetState, ...]
    managed: frozenset[int]
    interfaces: Mapping[str, str | None] | None = None
    last_sequence: int = 0
    reporting: bool = False

    def link_fault(self, interface: str) -> str | None:
        """Why no guest is heard on the interface, for a person; None if they are, or where the hook does not tell."""
        if self.interfaces is None:
            return None
        if interface not in self.interfaces:
            return f"interface {interface} does not exist, or has no IPv4 address"
        word = self.interfaces[interface]
        return None if word is None else f"interface {interface} {_LINK_FAULTS.get(word, f'is told to have {word!r}')}"


def mending(resync: Resync, state: SubnetState, present: Iterable[Entry], size: int) -> list[Batch]:
    """The steps that lead a server from the set that is `present`, in force as `state`, to that of `resync`: up to
    `size` reservations in each, what goes before what comes. What is in both is not touched, and goes on being served.
    Between the steps an epoch is in force that nobody takes for a history of ours."""
    wanted = {mac: (address, hostname or "") for mac, address, hostname in resync.reservations}
    has = {mac: (address, hostname or "") for mac, address, hostname in present}
    gone = [mac for mac in has if mac not in wanted]
    coming = [each for each in resync.reservations if has.get(each[0]) != wanted[each[0]]]
    parts: list[tuple[tuple[Entry, ...], tuple[Mac, ...]]] = [(tuple(coming), tuple(gone))]
    if len(coming) + len(gone) > size:
        # Two that change places must not meet in different steps.
        gone += [mac for mac, _, _ in coming if mac in has]
        parts = [((), tuple(gone[at : at + size])) for at in range(0, len(gone), size)]
        parts += [(tuple(coming[at : at + size]), ()) for at in range(0, len(coming), size)]
    steps: list[Batch] = []
    epoch, base = state.epoch, state.revision
    for number, (comes, goes) in enumerate(parts, start=1):
        step = Batch(
            subnet=resync.subnet,
            epoch=resync.epoch if number == len(parts) else _between(resync.epoch),
            base=base,
            revision=resync.revision,
            set=comes,
            unset=goes,
            from_epoch=epoch,
        )
        steps.append(step)
        epoch, base = step.epoch, step.revision
    return steps


def _between(epoch: str) -> str:
    """In force while a server is led to a set of this epoch."""
    return f"{epoch} {_BEING_MENDED}"


def toggle(digest: str, mac: Mac, address: IPAddress, hostname: str | None = None) -> str:
    """The digest after this reservation was put into the set, or, being in it, taken out.

    A digest is the XOR over all reservations of the first eight octets of SHA-256 of "MAC IP HOSTNAME", as 16
    lower-case hexadecimal digits; without a hostname the text ends in a space.
    """
    text = f"{mac} {address} {hostname or ''}"
    part = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return f"{int(digest, 16) ^ part:016x}"


def digest_of(reservations: Iterable[Entry]) -> str:
    """The digest of a whole set, in any order."""
    digest = EMPTY_DIGEST
    for mac, address, hostname in reservations:
        digest = toggle(digest, mac, address, hostname)
    return digest
