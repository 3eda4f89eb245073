"""Random operations on a whole site while everything fails that can; then quiet, and what was promised must be so.

`LEASEHOLD_CHAOS_SEED=…` replays a run (see chaos.schedule for what is the same then), `LEASEHOLD_CHAOS_STEPS=…` makes
it longer or shorter. A failure's report has the seed, what was violated, and where the whole history is.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from chaos import history
from chaos.checker import check
from chaos.field import SETTINGS, Field
from chaos.quiet import converge, examined, guests_are_served, servers_stay
from chaos.schedule import schedule
from lab import Lab
from lab.postgres import postgres

_PACE_S = 0.12
_DEFAULT_SEED = 4
_LONG_SEED = 20_000


def _seed(default: int) -> int:
    return int(os.environ.get("LEASEHOLD_CHAOS_SEED", default))


def _steps(default: int) -> int:
    return int(os.environ.get("LEASEHOLD_CHAOS_STEPS", default))


@pytest.fixture
def field(lab: Lab) -> Iterator[Field]:
    """Three hosts, two networks, each with two servers wanted; one control plane on SQLite."""
    with Field(lab, lab.control_plane(**SETTINGS)) as field:
        yield field


@pytest.fixture
def cluster(lab: Lab) -> Iterator[Field]:
    """The same with two APIs and two workers over PostgreSQL, which may be killed too."""
    with postgres(durable=True) as server:
        control = lab.cluster(server, settings={**SETTINGS, "duty_timeout_s": 2})
        with Field(lab, control, server) as field:
            yield field


@pytest.mark.timeout(240)
def test_a_hundred_steps(lab: Lab, field: Field) -> None:
    run(lab, field, _seed(_DEFAULT_SEED), _steps(100))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_steps(lab: Lab, field: Field) -> None:
    run(lab, field, _seed(_LONG_SEED), _steps(1000))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_steps_over_postgresql(lab: Lab, cluster: Field) -> None:
    run(lab, cluster, _seed(_LONG_SEED), _steps(1000))


def run(lab: Lab, field: Field, seed: int, count: int) -> None:
    """Performs the seed's steps, has everything healed, and fails with all that is not as it was promised."""
    steps = schedule(seed, count, field.cast)
    print(f"LEASEHOLD_CHAOS_SEED={seed} LEASEHOLD_CHAOS_STEPS={count}")
    began = time.monotonic()
    wrong: list[str] = []
    try:
        for step in steps:
            print(f"{time.monotonic() - began:7.2f} {step}")
            field.perform(step)
            time.sleep(_PACE_S)  # the rate of the load
        field.heal()
        field.settle()
        print(f"{time.monotonic() - began:7.2f} quiet")
        field.start_again()
        wrong += converge(field)
        wrong += guests_are_served(field)
        wrong += servers_stay(field)
        wrong += examined(field)
    finally:
        entries = field.entries().entries()
        epoch = min(map(history.begin_of, entries), default=0)
        found = check(field.ground, entries)
        told = [f"{each.invariant} at {(each.at - epoch) / 1e9:.3f}: {each.text}" for each in found]
        path = Path(lab.directory / "history.txt")
        history.write(path, entries)
        print(f"{time.monotonic() - began:7.2f} checked {len(entries)} entries of {path}: {summary(entries)}")
        print("\n".join(told + wrong))
    assert not told + wrong, f"seed {seed}, {count} steps: {len(told + wrong)} promises broken, see {path}"


def summary(entries: Iterable[history.Entry]) -> str:
    """What the run consisted of, in a line: whether it was worth its time."""
    told: Counter[str] = Counter()
    owners: dict[str, set[str]] = {}
    for entry in entries:
        if isinstance(entry, history.Call):
            told[f"{entry.verb} {entry.status}"] += 1
        elif isinstance(entry, history.Heard):
            told[entry.kind] += 1
            owners.setdefault(entry.ip, set()).add(entry.mac)
        elif isinstance(entry, history.Exchange):
            told[entry.outcome] += 1
        else:
            told[type(entry).__name__] += 1
    shared = sum(len(macs) > 1 for macs in owners.values())
    return f"{dict(sorted(told.items()))}, {shared} addresses served to several MACs in turn"
