"""Moves what was let go on: addresses from draining to cooling, addresses and MACs from cooling to free, and addresses
of vNICs whose MAC changed while they ran back to them. Removes renumbered subnets that are empty, and log entries that
no server needs any more; and ends the leases that ended without an event."""

from leasehold.service import macs, renumbering, replication, reservations, settling, vnics
from leasehold.service.context import Context
from leasehold.worker.loops import Loop

_STEPS = (
    reservations.sweep,
    macs.sweep,
    vnics.settle,
    renumbering.remove_retired,
    replication.prune,
    settling.settle,
)


def sweeper(ctx: Context) -> Loop:
    """The loop that sweeps every `sweep_interval_s`, and goes on at once while there is something to move."""

    def turn() -> float:
        moved = sum(step(ctx) for step in _STEPS)
        return 0 if moved else ctx.settings.sweep_interval_s

    return Loop("sweep", turn)
