"""The hook's life in one Kea process."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hook.conftest import Run
from hook.faults import disk_full
from hook.stand_in import StandIn, assigned, decoded
from leasehold_hook.border import Level
from leasehold_hook.hook import Hook


def parameters(state: Path, **more: object) -> str:
    given = {"host-id": "host-a", "state-directory": str(state)}
    return json.dumps(given | {name.replace("_", "-"): value for name, value in more.items()})


def add(mac: str) -> dict[str, object]:
    return {"reservation": {"subnet-id": 7, "hw-address": mac, "ip-address": "192.0.2.10"}}


def spooled(state: Path) -> list[dict[str, object]]:
    return [event for path in sorted((state / "spool").iterdir()) for event in decoded(path.read_bytes())]


def test_load_makes_the_state_directory_for_kea_alone(hook: Hook, state: Path) -> None:
    assert state.stat().st_mode & 0o777 == 0o700


def test_load_takes_the_options(border: StandIn, state: Path) -> None:
    hook = Hook(border)
    hook.load(parameters(state, unknown_clients="nak", event_queue=128, rejection_table=16))
    hook.close()
    assert border.options == ("nak", 128, 16)


def test_a_bad_parameter_is_told_and_nothing_is_made(border: StandIn, state: Path) -> None:
    refusal = Hook(border).load(parameters(state, event_queue=-1))
    assert refusal == "event-queue: -1 is not a number of records; use an integer from 1 to 16777216"
    assert (state.exists(), border.options) == (False, None)


def test_a_state_directory_that_cannot_be_made_is_told(border: StandIn, tmp_path: Path) -> None:
    refusal = Hook(border).load(parameters(tmp_path / "none" / "leasehold"))
    assert refusal is not None
    assert refusal.startswith(f"state-directory: '{tmp_path}/none/leasehold' cannot be used (")


def test_a_state_directory_that_is_a_file_is_told(border: StandIn, state: Path) -> None:
    state.write_text("")
    refusal = Hook(border).load(parameters(state))
    assert refusal is not None
    assert refusal.startswith(f"state-directory: '{state}' cannot be used (")


def test_a_failed_load_can_be_made_good(border: StandIn, state: Path) -> None:
    hook = Hook(border)
    hook.load(parameters(state, spool_limit=1))
    assert hook.load(parameters(state)) is None
    hook.close()


def test_a_second_server_with_the_same_state_directory_does_not_load(hook: Hook, state: Path) -> None:
    refusal = Hook(StandIn()).load(parameters(state))
    assert refusal == (f"the state directory {state} is in use by another process; give each Kea server its own")


def test_a_reload_keeps_the_boot_and_the_reservations(hook: Hook, run: Run, state: Path) -> None:
    run("reservation-add", add("02:00:00:00:00:01"))
    before = run("leasehold-status")
    hook.unload()
    assert hook.load(parameters(state)) is None
    hook.configured()
    assert run("leasehold-status") == before


def test_a_reload_takes_new_parameters(hook: Hook, run: Run, state: Path, border: StandIn) -> None:
    hook.unload()
    hook.load(json.dumps({"host-id": "host-b", "state-directory": str(state), "unknown-clients": "drop"}))
    assert (run("leasehold-status")["arguments"]["host-id"], border.options) == ("host-b", ("drop", 65_536, 4_096))


def test_a_reload_with_a_bad_parameter_is_told_and_the_old_ones_stay(hook: Hook, run: Run, state: Path) -> None:
    hook.unload()
    refusal = hook.load(parameters(state, host_id=""))
    assert refusal is not None
    assert run("leasehold-status")["arguments"]["host-id"] == "host-a"


def test_the_state_directory_cannot_change_while_kea_runs(hook: Hook, state: Path, tmp_path: Path) -> None:
    assert hook.load(parameters(tmp_path / "other")) == (
        f"state-directory: '{tmp_path}/other' is not '{state}', where this process keeps its state; "
        "restart kea-dhcp4 to change it"
    )


def test_a_new_process_is_a_new_boot(hook: Hook, run: Run, state: Path) -> None:
    before = run("leasehold-status")["arguments"]
    hook.close()
    again = Hook(StandIn())
    again.load(parameters(state))
    after = json.loads(again.command(b'{"command": "leasehold-status"}'))["arguments"]
    again.close()
    assert (before["boot-order"], after["boot-order"]) == (1, 2)
    assert before["boot-id"] != after["boot-id"]


def test_a_start_brings_the_reservations_to_the_store(hook: Hook, run: Run, state: Path) -> None:
    run("reservation-add", add("02:00:00:00:00:01"))
    hook.close()
    border = StandIn()
    again = Hook(border)
    again.load(parameters(state))
    again.close()
    assert border.held == {7: {0x020000000001: (0xC000020A, "")}}


def test_a_subnet_that_left_is_as_if_it_had_never_been_heard_of(hook: Hook, run: Run, border: StandIn) -> None:
    run("reservation-add", add("02:00:00:00:00:01"))
    hook.forget([7, 8])
    assert run("leasehold-status")["arguments"]["subnets"] == []
    assert border.logged_as("FORGOTTEN") == [
        "subnets 7 left the configuration, and their reservations are gone; the control plane sends them again where "
        "they are wanted"
    ]


def test_a_subnet_that_the_journal_cannot_forget_is_told_and_forgotten_by_a_later_command(
    hook: Hook, run: Run, border: StandIn, state: Path
) -> None:
    run("reservation-add", add("02:00:00:00:00:01"))
    with disk_full():
        hook.forget([7])
        assert run("leasehold-status")["arguments"]["subnets"] == []
    ((level, text),) = [(level, text) for level, name, text in border.logged if name == "NOT_FORGOTTEN"]
    assert (level, "are served no more, but still on disk" in text) == (Level.ERROR, True)
    run("leasehold-status")
    hook.close()
    again = StandIn()
    later = Hook(again)
    later.load(parameters(state))
    later.close()
    assert again.held == {}


def test_a_set_that_came_after_its_subnet_left_is_kept(hook: Hook, run: Run, state: Path) -> None:
    run("reservation-add", add("02:00:00:00:00:01"))
    hook.forget([7])
    row = {"hw-address": "02:00:00:00:00:01", "ip-address": "192.0.2.11"}
    arguments = {"subnet-id": 7, "epoch": "e", "base": 0, "revision": 5, "set": [row]}
    assert run("leasehold-apply", arguments)["result"] == 0
    hook.unload()
    hook.load(parameters(state))
    hook.forget([8])
    (subnet,) = run("leasehold-status")["arguments"]["subnets"]
    assert (subnet["revision"], subnet["count"]) == (5, 1)


def test_a_resync_under_way_does_not_outlive_its_subnet(hook: Hook, run: Run) -> None:
    def page(number: int) -> dict[str, object]:
        row = {"hw-address": f"02:00:00:00:00:0{number}", "ip-address": f"192.0.2.{number}"}
        about = {"subnet-id": 7, "epoch": "e", "revision": 5, "replace": True}
        return about | {"page": number, "last": number == 2, "set": [row]}

    run("reservation-add", add("02:00:00:00:00:01"))
    assert run("leasehold-apply", page(1))["result"] == 0
    hook.forget([7])
    assert run("leasehold-apply", page(2))["result"] == 4
    assert [run("leasehold-apply", page(number))["result"] for number in (1, 2)] == [0, 0]


def test_unload_brings_waiting_events_to_disk(hook: Hook, border: StandIn, state: Path) -> None:
    border.events += [assigned(number) for number in range(250)]
    border.rejections.append({"type": "client.rejected", "at": 1})
    hook.unload()
    assert [event["seq"] for event in spooled(state)] == [*range(1, 252)]


def test_a_command_before_load_is_an_error(border: StandIn) -> None:
    assert json.loads(Hook(border).command(b'{"command": "leasehold-status"}'))["result"] == 1


@pytest.mark.parametrize("call", [Hook.unload, Hook.configured, lambda hook: hook.forget([7])])
def test_calls_after_a_failed_load_are_harmless(call: Callable[[Hook], None], border: StandIn) -> None:
    hook = Hook(border)
    hook.load("{}")
    call(hook)
    assert border.held == {}
