"""Moves released addresses on: from draining to cooling, from cooling to free."""

from leasehold.service import reservations
from leasehold.service.context import Context
from leasehold.worker.loops import Loop


def sweeper(ctx: Context) -> Loop:
    """The loop that sweeps every `sweep_interval_s`, and goes on at once while there is something to move."""

    def turn() -> float:
        return 0 if reservations.sweep(ctx) else ctx.settings.sweep_interval_s

    return Loop("sweep", turn)
