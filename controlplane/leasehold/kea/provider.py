"""The seed's interface between whoever decides which host serves which network and a DHCP server, and Kea behind it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from netaddr import IPAddress

from leasehold.domain.addresses import Mac
from leasehold.domain.placement import Served
from leasehold.domain.values import Host
from leasehold.errors import KeaRefused
from leasehold.kea.commands import Commands
from leasehold.kea.rendering import render


class IpamDhcpProvider(Protocol):
    """Serves networks on a host by DHCP: with the reservations that it is given, and nothing else."""

    def provide(self, host: Host, networks: Sequence[Served]) -> None:
        """Serves exactly these networks on the host. Raises HostUnreachable, and KeaRefused with nothing changed."""

    def dont_provide(self, host: Host) -> None:
        """The same as to provide no network."""

    def add_reservation(self, subnet: int, mac: Mac, ip: IPAddress | None = None) -> IPAddress:
        """Reserves this address of the subnet for the MAC, or chooses a free one; returns it. Every host that provides
        the subnet serves it, also one that begins to later."""

    def remove_reservation(self, subnet: int, ip: IPAddress) -> None:
        """Takes the reservation of the address back."""


class ReservationLog(Protocol):
    """Where reservations are written, from which they are pushed to the servers."""

    def add(self, subnet: int, mac: Mac, ip: IPAddress | None) -> IPAddress:
        """Writes that the MAC gets this address, or a free one; returns it."""

    def remove(self, subnet: int, ip: IPAddress) -> None:
        """Writes that nobody gets the address any more."""


class KeaDhcpProvider:
    """Writes what a host serves into the configuration of its Kea, which must have Leasehold's hook loaded, and
    reservations into the log that every server's hook follows: there is no other way for them to a server."""

    def __init__(self, commands: Commands, log: ReservationLog, still_asked: Callable[[], None] = lambda: None) -> None:
        """`still_asked` raises when whoever asked has no say any more; it is called right before a change."""
        self._commands = commands
        self._log = log
        self._still_asked = still_asked
        # Hosts whose file has what this provider had them run last.
        self._written: set[str] = set()

    def provide(self, host: Host, networks: Sequence[Served]) -> None:
        """See IpamDhcpProvider. A configuration that says so already is not set again, but it is written, unless this
        provider knows that it was: what runs does not tell what Kea's file has, and with that a restart begins. Whoever
        set it may have ended, or lost the connection, before it was written."""
        running = self._commands.config_get(host)
        wanted = render(running, networks)
        if wanted == running and host.id in self._written:
            return
        if wanted != running:
            self._commands.config_test(host, wanted)
            self._still_asked()
            self._written.discard(host.id)
            self._commands.config_set(host, wanted)
        try:
            self._commands.config_write(host)
        except KeaRefused:
            # What would be gone after the next restart must not count as provided.
            if wanted != running:
                self._commands.config_set(host, running)
            raise
        self._written.add(host.id)

    def dont_provide(self, host: Host) -> None:
        """See IpamDhcpProvider."""
        self.provide(host, [])

    def add_reservation(self, subnet: int, mac: Mac, ip: IPAddress | None = None) -> IPAddress:
        """See IpamDhcpProvider."""
        return self._log.add(subnet, mac, ip)

    def remove_reservation(self, subnet: int, ip: IPAddress) -> None:
        """See IpamDhcpProvider."""
        self._log.remove(subnet, ip)
