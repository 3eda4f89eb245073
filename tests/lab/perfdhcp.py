"""Kea's own load generator, and its figures."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.namespace import Namespace
from lab.process import end


@dataclass(frozen=True, kw_only=True)
class Exchanges:
    """One half of DORA: what was sent, what came back in time."""

    sent: int
    received: int
    drops: int
    average_delay_ms: float | None
    """None where nothing came back."""


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What perfdhcp printed at its end."""

    seconds: int
    """How long it offered exchanges."""
    discover_offer: Exchanges
    request_ack: Exchanges | None
    """None where DISCOVERs only were asked for."""

    @property
    def rate(self) -> float:
        """Completed exchanges per second: DORA, or DISCOVER and OFFER only where that was asked for.

        perfdhcp's own rate counts the time too that it waits at the end for late answers.
        """
        return (self.request_ack or self.discover_offer).received / self.seconds


class Perfdhcp:
    """Made by `Lab.perfdhcp`. It acts as a relay agent at its address, as perfdhcp does for DHCPv4."""

    def __init__(self, namespace: Namespace, interface: str, directory: Path) -> None:
        self.namespace = namespace
        self._interface = interface
        self._directory = directory
        self._runs = 0

    def run(self, *, rate: int, clients: int, seconds: int, first_mac: str, discover_only: bool = False) -> LoadResult:
        """Offer `rate` exchanges per second for `seconds` by `clients` MACs that count up from `first_mac`."""
        return self.start(
            rate=rate, clients=clients, seconds=seconds, first_mac=first_mac, discover_only=discover_only
        ).result()

    def start(self, *, rate: int, clients: int, seconds: int, first_mac: str, discover_only: bool = False) -> "Load":
        """As `run`, without waiting for its end."""
        self._runs += 1
        output = self._directory / f"perfdhcp-{self._runs}.out"
        command = [
            "perfdhcp", "-4", "-l", self._interface, "-r", str(rate), "-R", str(clients), "-p", str(seconds),
            "-b", f"mac={first_mac}", "-W", "500000", *(["-i"] if discover_only else []),
        ]  # fmt: skip
        return Load(self.namespace.start(command, output), output, seconds)


class Load:
    """A running perfdhcp."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, seconds: int) -> None:
        self._process = process
        self._output = output
        self._seconds = seconds

    @property
    def runs(self) -> bool:
        """Whether it still sends."""
        return self._process.poll() is None

    def end(self) -> None:
        """Stop it before its time; harmless when it has ended."""
        end(self._process)

    def result(self) -> LoadResult:
        """Wait for the end; the figures. Raises RuntimeError with what perfdhcp said if it failed."""
        code = self._process.wait()
        text = self._output.read_text()
        # 3 means that some exchanges were not completed, which the figures say (perfdhcp(8)).
        if code not in (0, 3):
            raise RuntimeError(f"perfdhcp ended with {code}: {text}")
        return parse(text, self._seconds)


def parse(text: str, seconds: int) -> LoadResult:
    """The figures in the output of a perfdhcp that offered for `seconds`; raises ValueError if it has none."""
    discover_offer = _exchanges(text, "DISCOVER-OFFER")
    if discover_offer is None:
        raise ValueError(f"perfdhcp printed no statistics: {text}")
    return LoadResult(seconds=seconds, discover_offer=discover_offer, request_ack=_exchanges(text, "REQUEST-ACK"))


def _exchanges(text: str, name: str) -> Exchanges | None:
    section = re.search(rf"\*\*\*Statistics for: {name}\*\*\*\n(.*?)(?:\n\*\*\*|\Z)", text, re.DOTALL)
    if section is None:
        return None
    figures = dict(re.findall(r"^([a-z ]+): (\S+)", section[1], re.MULTILINE))
    delay = figures.get("avg delay", "n/a")
    return Exchanges(
        sent=int(figures["sent packets"]),
        received=int(figures["received packets"]),
        drops=int(figures["drops"]),
        average_delay_ms=float(delay) if delay[0].isdigit() else None,
    )
