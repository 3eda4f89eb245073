"""Many light guests: DHCP clients with any MAC, all on one cable of each network, that keep nothing in mind."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from chaos.history import Exchange
from lab.dhcp import Message, RawClient, Type
from lab.lab import Lab
from lab.vm import INTERFACE

_ANSWER_S = 1.0
_TRIES = 3
_IMPATIENT_S = 0.3
_PROBE_S = 0.03


class Guests:
    """The guests of some networks of a laboratory."""

    def __init__(self, lab: Lab, networks: Iterable[str]) -> None:
        self._at = {network: lab.vm(f"guests-{network}", network, "02:ee:00:00:00:01") for network in networks}

    def boot(self, network: str, mac: str, *, patient: bool) -> Exchange:
        """DISCOVER, and REQUEST of the first offer. A patient guest tries it again."""

        def once(client: RawClient, silence_s: float) -> Message | None:
            offer = client.discover(silence_s)
            return None if offer is None else client.select(offer, silence_s)

        return self._exchange(network, mac, None, once, patient=patient)

    def reboot(self, network: str, mac: str, leased: str, *, patient: bool) -> Exchange:
        """REQUEST of the address that it had, as in INIT-REBOOT."""
        return self._exchange(
            network, mac, leased, lambda client, s: client.request(leased, silence_s=s), patient=patient
        )

    def renew(self, network: str, mac: str, leased: str, *, patient: bool) -> Exchange:
        """REQUEST of the address that it has, as in REBINDING."""
        return self._exchange(network, mac, leased, lambda client, s: client.renew(leased, s), patient=patient)

    def release(self, network: str, mac: str, leased: str, server: str) -> None:
        """RELEASE, which nobody answers."""
        with self._client(network, mac) as client:
            client.release(leased, server)

    def ask(self, network: str, mac: str) -> None:
        """DISCOVER, without waiting for what is offered."""
        with self._client(network, mac) as client:
            client.send(client.message(Type.DISCOVER))

    def offers(self, network: str, mac: str, silence_s: float, at_most: int) -> list[Message]:
        """What is offered within so many seconds, until there are `at_most` offers."""
        with self._client(network, mac) as client:
            discover = client.message(Type.DISCOVER)
            client.send(discover)
            return client.answers(discover, silence_s, at_most)

    def probe(self, network: str, macs: Callable[[], Sequence[str]], stopping: threading.Event) -> None:
        """Asks in turn for every MAC, so that the wire shows what each server would serve; until it is stopping."""
        with self._client(network, "") as client:
            while not stopping.wait(_PROBE_S):
                for client.mac in macs():
                    client.send(client.message(Type.DISCOVER))
                    if stopping.wait(_PROBE_S):
                        return

    def _exchange(
        self,
        network: str,
        mac: str,
        asked: str | None,
        once: Callable[[RawClient, float], Message | None],
        *,
        patient: bool,
    ) -> Exchange:
        begin = time.time_ns()
        answer = None
        with self._client(network, mac) as client:
            for _ in range(_TRIES if patient else 1):
                answer = once(client, _ANSWER_S if patient else _IMPATIENT_S)
                if answer is not None:
                    break
        outcome = {Type.ACK: "ack", Type.NAK: "nak"}[answer.type] if answer is not None else "silence"
        return Exchange(
            begin=begin, end=time.time_ns(), network=network, mac=mac, asked=asked, outcome=outcome,
            ip=answer.yiaddr if answer is not None and outcome == "ack" else None,
            server=answer.server if answer is not None else None,
        )  # fmt: skip

    def _client(self, network: str, mac: str) -> RawClient:
        return RawClient(self._at[network].namespace, INTERFACE, mac)
