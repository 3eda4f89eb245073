"""PostgreSQL killed under load: what was acknowledged is kept, the API says 503 meanwhile, and all goes on."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from e2e.conftest import staged_cluster
from lab.control_plane import ControlPlane
from lab.lab import Lab
from lab.postgres import Postgres, postgres
from lab.stage import Stage
from lab.waiting import wait_until

PATIENCE_S = 60
CLIENTS = 3


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A PostgreSQL of the test's own."""
    with postgres() as own:
        yield own


class Client(threading.Thread):
    """Creates, starts and stops vNICs until it is told to end. `known` is what was acknowledged last of each: whether
    it runs, or None while that is not known, since a call had another answer than success."""

    def __init__(self, control: ControlPlane, number: int, subnet: int) -> None:
        super().__init__(daemon=True)
        self._api = control.api(index=number % 2)
        self._name = f"client-{number}"
        self._subnet = subnet
        self.ending = threading.Event()
        self.known: dict[str, bool | None] = {}
        self.others: list[httpx.Response] = []

    def run(self) -> None:
        number = 0
        with self._api:
            while not self.ending.is_set():
                vnic = f"{self._name}-{number}"
                self._do(vnic, "PUT", "", running=False, vm="vm", name="nic1", subnet=self._subnet)
                self._do(vnic, "POST", "/start", running=True, wait="none")
                if number % 3 == 0:
                    self._do(vnic, "POST", "/stop", running=False)
                number += 1

    def _do(self, vnic: str, method: str, what: str, *, running: bool, **body: object) -> None:
        """Again until it is acknowledged."""
        while not self.ending.is_set():
            self.known[vnic] = None
            answer = self._api.request(method, f"/v1/vnics/{vnic}{what}", json=body or None)
            if answer.is_success:
                self.known[vnic] = running
                return
            self.others.append(answer)
            self.ending.wait(0.1)


def test_a_killed_postgresql_loses_nothing_that_was_acknowledged(lab: Lab, server: Postgres) -> None:
    with staged_cluster(lab, server, hosts=2, servers=2) as stage:
        stage.control.admin_token  # noqa: B018 made while there is a database
        clients = [Client(stage.control, number, stage.subnet) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        enough(clients, 3)
        server.kill()
        wait_until(lambda: all(client.others for client in clients), PATIENCE_S, "every client hears of it")
        server.start()
        reached = {client: len(client.known) for client in clients}
        wait_until(lambda: all(len(client.known) >= reached[client] + 3 for client in clients), PATIENCE_S, "all go on")
        for client in clients:
            client.ending.set()
        for client in clients:
            client.join(PATIENCE_S)
        told = [answer for client in clients for answer in client.others]
        assert {answer.status_code for answer in told} == {503}
        assert {answer.json()["code"] for answer in told} <= {"database-unavailable", "database-busy"}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in told)
        for client in clients:
            for vnic, running in client.known.items():
                if running is not None:
                    assert stage.get(f"/v1/vnics/{vnic}")["running"] is running
        converges(stage)


def enough(clients: list[Client], vnics: int) -> None:
    wait_until(lambda: all(len(client.known) >= vnics for client in clients), PATIENCE_S, "there is load")


def converges(stage: Stage) -> None:
    """Both servers have just the reservations that there are."""
    wait_until(lambda: len(stage.running()) == 2, PATIENCE_S, "both servers run")
    items = stage.get(f"/v1/subnets/{stage.subnet}/reservations", limit=1000)["items"]
    assert items
    wait_until(
        lambda: [[each["count"] for each in host.status()["subnets"]] for host in stage.hosts] == [[len(items)]] * 2,
        PATIENCE_S,
        "both have all reservations",
    )
    assert len({each["digest"] for host in stage.hosts for each in host.status()["subnets"]}) == 1
