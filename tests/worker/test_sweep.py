"""The sweeper moves on what was let go."""

import time
from pathlib import Path

from leasehold.config import Settings
from leasehold.domain.values import VnicSpec
from leasehold.service import mac_pools, vnics
from leasehold.service.context import open_context
from leasehold.worker.sweep import sweeper


def test_a_mac_that_is_let_go_becomes_free_when_it_has_cooled(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/leasehold.sqlite"
    ctx = open_context(Settings(database_url=url, cool_down_s=0, sweep_interval_s=0.05))
    vnics.put(ctx, VnicSpec(id="v", vm="web-1", name="nic1"))
    vnics.delete_vnic(ctx, "v")
    assert mac_pools.get(ctx, "default").usage.cooling == 1
    loop = sweeper(ctx)
    loop.start()
    deadline = time.monotonic() + 30
    while mac_pools.get(ctx, "default").usage.cooling and time.monotonic() < deadline:
        time.sleep(0.02)
    loop.stop()
    usage = mac_pools.get(ctx, "default").usage
    assert (usage.cooling, usage.free) == (0, usage.size)
    assert loop.join(deadline)
    ctx.db.dispose()
