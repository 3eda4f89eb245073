"""Removes old events, a few at a time."""

import time

from leasehold.service import history
from leasehold.service.context import Context
from leasehold.worker.loops import Loop

_STEP_PAUSE_S = 0.1
_LOOK_S = 30.0
_TIDY_S = 3600.0


def pruner(ctx: Context) -> Loop:
    """The loop that lets others in between any two steps."""
    tidied_at = time.monotonic()

    def turn() -> float:
        nonlocal tidied_at
        if history.prune(ctx):
            return _STEP_PAUSE_S
        if time.monotonic() - tidied_at >= _TIDY_S:
            history.tidy(ctx)
            tidied_at = time.monotonic()
        return _LOOK_S

    return Loop("history", turn)
