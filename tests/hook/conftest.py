"""Fixtures of the hook's Python half."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hook.stand_in import StandIn
from leasehold_hook.hook import Hook

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def border() -> StandIn:
    """What the hook calls in place of Kea."""
    return StandIn()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that does not exist yet."""
    return tmp_path / "leasehold"


@pytest.fixture
def hook(border: StandIn, state: Path) -> Iterator[Hook]:
    """A hook that was loaded with nothing but what is required."""
    loaded = Hook(border)
    assert loaded.load(json.dumps({"host-id": "host-a", "state-directory": str(state)})) is None
    yield loaded
    loaded.close()


@pytest.fixture
def run(hook: Hook) -> Run:
    """Runs a command: `run("reservation-get", {"subnet-id": 7, …})`."""

    def run_command(name: str, arguments: object = None) -> dict[str, Any]:
        command: dict[str, object] = {"command": name}
        if arguments is not None:
            command["arguments"] = arguments
        answer: dict[str, Any] = json.loads(hook.command(json.dumps(command).encode()))
        return answer

    return run_command
