"""Random operations on a whole site while everything fails that can; then quiet, and what was promised must be so.

`LEASEHOLD_CHAOS_SEED=…` replays a run (see chaos.schedule for what is the same then), `LEASEHOLD_CHAOS_STEPS=…` makes
it longer or shorter. A failure's report has the seed, what was violated, and where the whole history is.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import history
from chaos.checker import check
from chaos.field import SETTINGS, Field, cast
from chaos.quiet import accounts, converge, guests_are_served, servers_stay
from chaos.schedule import schedule
from lab import Lab

_PACE_S = 0.15
_DEFAULT_SEED = 4
_LONG_SEED = 20_000


def _seed(default: int) -> int:
    return int(os.environ.get("LEASEHOLD_CHAOS_SEED", default))


def _steps(default: int) -> int:
    return int(os.environ.get("LEASEHOLD_CHAOS_STEPS", default))


@pytest.fixture
def field(lab: Lab) -> Iterator[Field]:
    """Three hosts, two networks, each with two servers wanted."""
    with Field(lab, lab.control_plane(**SETTINGS)) as field:
        yield field


@pytest.mark.timeout(240)
def test_a_hundred_steps(lab: Lab, field: Field) -> None:
    run(lab, field, _seed(_DEFAULT_SEED), _steps(100))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_steps(lab: Lab, field: Field) -> None:
    run(lab, field, _seed(_LONG_SEED), _steps(1000))


def run(lab: Lab, field: Field, seed: int, count: int) -> None:
    """Performs the seed's steps, has everything healed, and fails with all that is not as it was promised."""
    steps = schedule(seed, count, cast(("serve",)))
    print(f"LEASEHOLD_CHAOS_SEED={seed} LEASEHOLD_CHAOS_STEPS={count}")
    began = time.monotonic()
    wrong: list[str] = []
    try:
        for step in steps:
            print(f"{time.monotonic() - began:7.2f} {step}")
            field.perform(step)
            time.sleep(_PACE_S)  # the rate of the load
        field.settle()
        field.heal()
        print(f"{time.monotonic() - began:7.2f} quiet")
        wrong += converge(field)
        wrong += guests_are_served(field)
        wrong += servers_stay(field)
        wrong += accounts(field)
    finally:
        entries = field.entries().entries()
        epoch = min(map(history.begin_of, entries), default=0)
        told = [
            f"{each.invariant} at {(each.at - epoch) / 1e9:.3f}: {each.text}" for each in check(field.ground, entries)
        ]
        path = Path(lab.directory / "history.txt")
        history.write(path, entries)
        print(f"{time.monotonic() - began:7.2f} checked {len(entries)} entries of {path}")
        print("\n".join(told + wrong))
    assert not told + wrong, f"seed {seed}, {count} steps: {len(told + wrong)} promises broken, see {path}"
