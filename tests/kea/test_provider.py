"""Networks on and off a real Kea."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from netaddr import IPAddress

from kea.served import BLUE, BLUE_TWICE, GREEN
from lab.host import Host as LabHost
from leasehold.domain.addresses import Mac
from leasehold.domain.values import Host, HostNetwork
from leasehold.errors import HostUnreachable, KeaRefused
from leasehold.kea.commands import Commands
from leasehold.kea.provider import KeaDhcpProvider, ReservationLog
from leasehold.kea.transport import Answer, Transport


class Recorder(Transport):
    """The real transport, that also remembers the names of the commands."""

    def __init__(self, transport: Transport) -> None:
        self._real = transport
        self.names: list[str] = []

    def command(self, host: Host, command: str, arguments: Mapping[str, Any] | None = None) -> Answer:
        self.names.append(command)
        return self._real.command(host, command, arguments)


class Cut(Recorder):
    """The real transport, whose connection breaks once: `before` this command is heard, or `after` it is carried out
    and before it is answered."""

    def __init__(self, transport: Transport, *, before: str | None = None, after: str | None = None) -> None:
        super().__init__(transport)
        self.break_once(before=before, after=after)

    def break_once(self, *, before: str | None = None, after: str | None = None) -> None:
        self._before = before
        self._after = after

    def command(self, host: Host, command: str, arguments: Mapping[str, Any] | None = None) -> Answer:
        if command == self._before:
            self._before = None
            raise HostUnreachable("cut before", host=host.id)
        answer = super().command(host, command, arguments)
        if command == self._after:
            self._after = None
            raise HostUnreachable("cut after", host=host.id)
        return answer


CUTS = pytest.mark.parametrize("cut", [{"after": "config-set"}, {"before": "config-write"}], ids=["set", "write"])


class NoLog(ReservationLog):
    """For tests of what is in the configuration: nothing is reserved."""

    def add(self, subnet: int, mac: Mac, ip: IPAddress | None) -> IPAddress:
        raise NotImplementedError

    def remove(self, subnet: int, ip: IPAddress) -> None:
        raise NotImplementedError


@pytest.fixture
def recorder(transport: Transport) -> Recorder:
    return Recorder(transport)


@pytest.fixture
def provider(recorder: Recorder) -> KeaDhcpProvider:
    return KeaDhcpProvider(Commands(recorder), NoLog())


def test_a_network_is_served(provider: KeaDhcpProvider, commands: Commands, host: Host) -> None:
    provider.provide(host, [BLUE])
    assert commands.status(host).managed == {7}


def test_a_network_is_still_served_after_a_restart(
    provider: KeaDhcpProvider, commands: Commands, host: Host, kea: LabHost
) -> None:
    provider.provide(host, [BLUE])
    kea.kill()
    kea.start()
    assert commands.status(host).managed == {7}


def test_kea_listens_on_the_networks_interface(provider: KeaDhcpProvider, commands: Commands, host: Host) -> None:
    provider.provide(host, [BLUE])
    assert commands.config_get(host)["interfaces-config"]["interfaces"] == ["eth-blue"]


def test_to_serve_and_then_not_to_leaves_what_was_there(
    provider: KeaDhcpProvider, commands: Commands, host: Host
) -> None:
    before = commands.config_get(host)
    provider.provide(host, [BLUE, GREEN])
    provider.dont_provide(host)
    assert json.dumps(commands.config_get(host)) == json.dumps(before)


def test_a_second_subnet_comes_and_goes(
    provider: KeaDhcpProvider, recorder: Recorder, commands: Commands, host: Host
) -> None:
    before = commands.config_get(host)
    provider.provide(host, [BLUE])
    alone = commands.config_get(host)
    provider.provide(host, [BLUE_TWICE])
    assert commands.status(host).managed == {7, 9}
    recorder.names.clear()
    provider.provide(host, [BLUE_TWICE])
    assert recorder.names == ["config-get"]
    provider.provide(host, [BLUE])
    assert json.dumps(commands.config_get(host)) == json.dumps(alone)
    provider.dont_provide(host)
    assert json.dumps(commands.config_get(host)) == json.dumps(before)


def test_the_administrators_subnet_comes_back_as_it_was(
    provider: KeaDhcpProvider, commands: Commands, host: Host
) -> None:
    before = commands.config_get(host)["subnet4"]
    provider.provide(host, [BLUE])
    assert [each for each in commands.config_get(host)["subnet4"] if each["id"] == 900] == before


def test_what_is_served_already_is_not_set_again(provider: KeaDhcpProvider, recorder: Recorder, host: Host) -> None:
    provider.provide(host, [BLUE])
    recorder.names.clear()
    provider.provide(host, [BLUE])
    assert recorder.names == ["config-get"]


def test_what_another_process_set_is_written_but_not_set_again(
    provider: KeaDhcpProvider, recorder: Recorder, host: Host
) -> None:
    provider.provide(host, [BLUE])
    recorder.names.clear()
    KeaDhcpProvider(Commands(recorder), NoLog()).provide(host, [BLUE])
    assert recorder.names == ["config-get", "config-write"]


def test_that_nothing_is_served_is_written_too(provider: KeaDhcpProvider, recorder: Recorder, host: Host) -> None:
    """What runs does not tell what the file has."""
    provider.dont_provide(host)
    provider.dont_provide(host)
    assert recorder.names == ["config-get", "config-write", "config-get"]


@CUTS
def test_what_was_changed_before_the_connection_broke_is_so_after_a_restart(
    transport: Transport, commands: Commands, host: Host, kea: LabHost, cut: dict[str, str]
) -> None:
    """By the process that wrote something else before."""
    cut_later = Cut(transport)
    provider = KeaDhcpProvider(Commands(cut_later), NoLog())
    provider.provide(host, [BLUE])
    cut_later.break_once(**cut)
    with pytest.raises(HostUnreachable):
        provider.provide(host, [GREEN])
    provider.provide(host, [GREEN])
    kea.restart()
    assert commands.status(host).managed == {8}


@CUTS
@pytest.mark.parametrize("same", [True, False], ids=["same-process", "new-process"])
def test_what_was_removed_before_the_connection_broke_does_not_come_back_with_a_restart(
    transport: Transport, commands: Commands, host: Host, kea: LabHost, cut: dict[str, str], same: bool
) -> None:
    KeaDhcpProvider(commands, NoLog()).provide(host, [BLUE])
    provider = KeaDhcpProvider(Commands(Cut(transport, **cut)), NoLog())
    with pytest.raises(HostUnreachable):
        provider.dont_provide(host)
    (provider if same else KeaDhcpProvider(commands, NoLog())).dont_provide(host)
    kea.restart()
    assert commands.status(host).managed == set()


def test_a_configuration_that_kea_refuses_changes_nothing(
    provider: KeaDhcpProvider, commands: Commands, host: Host
) -> None:
    provider.provide(host, [BLUE])
    before = commands.config_get(host)
    nowhere = replace(GREEN, attachment=HostNetwork(interface="eth-nowhere", address=IPAddress("198.51.100.2")))
    with pytest.raises(KeaRefused, match="eth-nowhere"):
        provider.provide(host, [BLUE, nowhere])
    assert commands.config_get(host) == before


def test_a_subnet_id_of_the_administrators_is_refused(
    provider: KeaDhcpProvider, commands: Commands, host: Host
) -> None:
    ((_, spec),) = BLUE.subnets
    with pytest.raises(KeaRefused, match="900"):
        provider.provide(host, [replace(BLUE, subnets=((900, spec),))])
    assert commands.status(host).managed == set()


def test_what_cannot_be_written_is_taken_back(
    provider: KeaDhcpProvider, commands: Commands, host: Host, kea: LabHost
) -> None:
    before = commands.config_get(host)
    kea.configuration.rename(kea.configuration.with_suffix(".moved"))
    kea.configuration.mkdir()
    with pytest.raises(KeaRefused, match="config-write"):
        provider.provide(host, [BLUE])
    assert commands.config_get(host) == before
