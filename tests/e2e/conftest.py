"""Stages for the end-to-end tests."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from lab.control_plane import ControlPlane
from lab.lab import Lab
from lab.postgres import Postgres
from lab.stage import Stage

MakeLab = Callable[..., AbstractContextManager[Lab]]

QUICK: dict[str, object] = {
    "webhook_allowed_networks": "10.99.0.0/24",
    "manage_interval_s": 0.5,
    "sweep_interval_s": 0.2,
    "control_connect_timeout_s": 1,
    "control_timeout_s": 2,
    "host_down_after_s": 3,
    "start_budget_s": 5,
    "cool_down_s": 1,
}


@contextmanager
def staged(lab: Lab, hosts: int, servers: int, **settings: object) -> Iterator[Stage]:
    """A stage with hosts, of which so many serve the network."""
    with _staged(lab, lab.control_plane(**QUICK | settings), hosts, servers) as stage:
        yield stage


@contextmanager
def staged_cluster(lab: Lab, server: Postgres, hosts: int, servers: int, **settings: object) -> Iterator[Stage]:
    """The same with two `leasehold api` and two `leasehold worker` over PostgreSQL."""
    with _staged(lab, lab.cluster(server, settings=QUICK | settings), hosts, servers) as stage:
        yield stage


@contextmanager
def _staged(lab: Lab, control: ControlPlane, hosts: int, servers: int) -> Iterator[Stage]:
    control.start()
    with control.api() as api:
        stage = Stage(lab, control, api)
        stage.add_hosts(hosts)
        stage.serve(servers)
        yield stage


@pytest.fixture(scope="module")
def pair(module_lab: Lab) -> Iterator[Stage]:
    """Two hosts that both serve, shared by a module's tests: what one of them breaks, it mends."""
    with staged(module_lab, hosts=2, servers=2) as stage:
        yield stage


@pytest.fixture
def single(lab: Lab) -> Iterator[Stage]:
    """One host of a test's own."""
    with staged(lab, hosts=1, servers=1) as stage:
        yield stage
