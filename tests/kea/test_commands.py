"""Our commands, taken by the real hook in a real Kea."""

import uuid
from dataclasses import replace

import pytest
from netaddr import IPAddress

from lab.host import Host as LabHost
from leasehold.domain.addresses import Mac
from leasehold.domain.replication import Batch, Entry, Resync, digest_of, mending
from leasehold.domain.values import Host
from leasehold.errors import KeaRefused
from leasehold.kea.commands import Commands
from leasehold.kea.transport import Transport

EPOCH = str(uuid.UUID(int=1))


def entries(count: int, first: int = 0) -> tuple[Entry, ...]:
    return tuple(
        (Mac(0x02_00_00_00_00_00 + number), IPAddress(int(IPAddress("192.0.2.10")) + number), None)
        for number in range(first, first + count)
    )


def batch(base: int, revision: int, present: tuple[Entry, ...], gone: tuple[Mac, ...] = ()) -> Batch:
    return Batch(subnet=7, epoch=EPOCH, base=base, revision=revision, set=present, unset=gone)


def test_a_host_that_heard_nothing_yet(commands: Commands, host: Host) -> None:
    status = commands.status(host)
    assert (status.host, status.subnets, status.managed) == ("host-a", (), frozenset())
    assert uuid.UUID(status.boot)


def test_a_host_tells_where_guests_are_heard(commands: Commands, host: Host, kea: LabHost) -> None:
    interface = kea.interfaces["blue"]
    assert commands.status(host).link_fault(interface) is None
    kea.namespace.ip("link", "set", interface, "down")
    assert commands.status(host).link_fault(interface) == f"interface {interface} is down"


def test_a_hook_that_does_not_tell_of_interfaces_is_understood(
    transport: Transport, host: Host, kea: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of an older release answers."""
    answer = transport.command(host, "leasehold-status")
    arguments = {name: value for name, value in answer.arguments.items() if name != "interfaces"}
    assert len(arguments) < len(answer.arguments)
    monkeypatch.setattr(transport, "command", lambda *_: replace(answer, arguments=arguments))
    assert Commands(transport).status(host).link_fault(kea.interfaces["blue"]) is None


def test_a_batch_is_taken(commands: Commands, host: Host) -> None:
    applied = commands.apply(host, batch(0, 3, entries(3)))
    assert applied.accepted
    assert (applied.state.epoch, applied.state.revision, applied.state.count) == (EPOCH, 3, 3)


def test_both_sides_have_the_same_digest(commands: Commands, host: Host) -> None:
    named: Entry = (Mac.parse("02:00:00:00:01:00"), IPAddress("192.0.2.99"), "a.example")
    commands.apply(host, batch(0, 3, entries(3)))
    state = commands.apply(host, batch(3, 5, (named,), (entries(1)[0][0],))).state
    assert state.digest == digest_of([*entries(2, first=1), named])


def test_a_batch_from_another_base_is_not_taken(commands: Commands, host: Host) -> None:
    commands.apply(host, batch(0, 3, entries(3)))
    applied = commands.apply(host, batch(2, 4, entries(4)))
    assert not applied.accepted
    assert (applied.state.epoch, applied.state.revision, applied.state.count) == (EPOCH, 3, 3)


def test_a_resync_in_pages(commands: Commands, host: Host) -> None:
    commands.apply(host, batch(0, 3, entries(3)))
    resync = Resync(subnet=7, epoch=EPOCH, revision=9, digest="0" * 16, reservations=entries(7, first=20))
    applied = commands.resync(host, resync, page_size=3)
    assert applied.accepted
    assert (applied.state.revision, applied.state.count) == (9, 7)
    assert applied.state.digest == digest_of(resync.reservations)


def test_reservations_are_read_in_pages(commands: Commands, host: Host) -> None:
    assert commands.reservations(host, 7, 3) == ([], None)
    commands.apply(host, batch(0, 7, entries(7)))
    read, after = commands.reservations(host, 7, 3)
    while after is not None:
        page, after = commands.reservations(host, 7, 3, after)
        assert len(page) <= 3
        read += page
    assert sorted(read) == sorted(entries(7))


def test_a_set_is_mended_step_by_step_into_another_history(commands: Commands, host: Host) -> None:
    """A mending that was broken off can be gone on with."""
    state = commands.apply(host, batch(0, 7, entries(7))).state
    resync = Resync(
        subnet=7,
        epoch=str(uuid.uuid4()),
        revision=4,
        digest=digest_of([*entries(9, first=20), *entries(2)]),
        reservations=(*entries(9, first=20), *entries(2)),
    )
    steps = mending(resync, state, commands.reservations(host, 7, 100)[0], 2)
    for step in steps[: len(steps) // 2]:
        state = commands.apply(host, step).state
    for step in mending(resync, state, commands.reservations(host, 7, 100)[0], 2):
        applied = commands.apply(host, step)
        assert applied.accepted
    assert (applied.state.epoch, applied.state.revision) == (resync.epoch, 4)
    assert applied.state.digest == resync.digest


def test_a_resync_to_nothing(commands: Commands, host: Host) -> None:
    commands.apply(host, batch(0, 3, entries(3)))
    applied = commands.resync(
        host, Resync(subnet=7, epoch=EPOCH, revision=4, digest="0" * 16, reservations=()), page_size=3
    )
    assert applied.accepted
    assert (applied.state.revision, applied.state.count) == (4, 0)


def test_an_address_twice_is_refused(commands: Commands, host: Host) -> None:
    (mac, address, _), (other, _, _) = entries(2)
    with pytest.raises(KeaRefused, match=r"192\.0\.2\.10"):
        commands.apply(host, batch(0, 1, ((mac, address, None), (other, address, None))))


def test_a_kea_without_the_hook(transport: Transport, host: Host, kea: LabHost) -> None:
    kea.install(hook=False)
    kea.restart()
    with pytest.raises(KeaRefused, match="leasehold-status"):
        Commands(transport).status(host)
