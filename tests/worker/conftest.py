"""A site for the tests of the worker."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, linux
from leasehold.config import Settings
from leasehold.service import networks
from leasehold.service.context import open_context
from worker.site import PATIENCE_S, Site


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    """Without hosts yet, and its worker not begun."""
    yield from site_on(lab, f"sqlite:///{tmp_path}/leasehold.sqlite")


def site_on(lab: Lab, database_url: str) -> Iterator[Site]:
    """The same on this database."""
    lab.network("blue")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    # The worker's threads are begun by this one, and so live where the control plane would.
    linux.setns(lab.control.path, linux.CLONE_NEWNET)
    settings = Settings(
        database_url=database_url,
        ipam_servers=1,
        cool_down_s=1,
        start_budget_s=PATIENCE_S,
        manage_interval_s=0.2,
        sweep_interval_s=0.2,
        control_timeout_s=2,
        control_connect_timeout_s=0.5,
        host_down_after_s=1,
        push_batch=4,
    )
    site = Site(lab, open_context(settings))
    networks.put(site.ctx, "blue", ipam_enabled=True, ipam_servers=None)
    yield site
    site.stop()
    site.ctx.db.dispose()
    linux.setns(Path(f"/proc/self/fd/{home}"), linux.CLONE_NEWNET)
    os.close(home)
