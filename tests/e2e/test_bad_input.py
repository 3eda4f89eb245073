"""Bad input to the hook in a real Kea: a clear error that names the field, and nothing half done."""

from typing import Any

import pytest

from lab import Host, Lab

SUBNET = {"id": 7, "subnet": "192.0.2.0/24", "user-context": {"leasehold": {}}}
ENTRY = {"hw-address": "02:00:00:00:00:01", "ip-address": "192.0.2.10"}


@pytest.fixture(scope="module")
def host(module_lab: Lab) -> Host:
    """A Kea with the hook and one reservation at revision 5."""
    module_lab.network("blue")
    host = module_lab.host("host-a", {"blue": "192.0.2.1/24"})
    host.install(subnets=[SUBNET])
    host.start()
    assert apply(host)["result"] == 0
    return host


def apply(host: Host, **changed: Any) -> dict[str, Any]:
    """A sound `leasehold-apply` of the first revisions, but for what is changed; None leaves an argument out."""
    arguments = {"subnet_id": 7, "epoch": "one", "base": 0, "revision": 5, "set": [ENTRY], "unset": []} | changed
    return host.command("leasehold-apply", **{name: value for name, value in arguments.items() if value is not None})


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"base": 4}, "base 4"),
        ({"base": 5, "epoch": "two"}, "epoch 'two'"),
        ({"base": 99, "revision": 100}, "base 99"),
    ],
)
def test_a_batch_on_another_base_or_epoch_is_a_conflict_that_tells_the_present_ones(
    host: Host, wrong: dict[str, Any], named: str
) -> None:
    before = host.status()["subnets"]
    answer = apply(host, revision=wrong.pop("revision", 6), **wrong, set=[])
    assert answer["result"] == 4
    assert named in answer["text"]
    assert [answer["arguments"]] == before == host.status()["subnets"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"subnet_id": 0}, "subnet-id"),
        ({"subnet_id": "7"}, "subnet-id"),
        ({"epoch": None}, "epoch"),
        ({"revision": -1}, "revision"),
        ({"base": 5, "revision": 5}, "revision"),
        ({"set": {}}, "set"),
        ({"set": [ENTRY, {**ENTRY, "ip-address": "192.0.2.300"}]}, "set[1].ip-address"),
        ({"set": [{**ENTRY, "hw-address": "02:00"}]}, "set[0].hw-address"),
        ({"set": [{**ENTRY, "next-server": "192.0.2.1"}]}, "next-server"),
        ({"unset": ["no mac"]}, "unset[0]"),
        ({"bogus": 1}, "bogus"),
    ],
)
def test_a_bad_batch_names_the_field_and_changes_nothing(host: Host, wrong: dict[str, Any], field: str) -> None:
    before = host.status()["subnets"]
    answer = apply(host, **{"base": 5, "revision": 6} | wrong)
    assert answer["result"] == 1
    assert field in answer["text"]
    assert host.status()["subnets"] == before


def test_two_macs_with_one_address_are_refused_whole_with_both_named(host: Host) -> None:
    other = {"hw-address": "02:00:00:00:00:02", "ip-address": "192.0.2.10"}
    further = {"hw-address": "02:00:00:00:00:03", "ip-address": "192.0.2.11"}
    answer = apply(host, base=5, revision=6, set=[further, other])
    assert answer["result"] == 1
    assert ENTRY["hw-address"] in answer["text"]
    assert other["hw-address"] in answer["text"]
    missing = host.command("reservation-get", subnet_id=7, ip_address="192.0.2.11")
    assert (missing["result"], missing["text"]) == (3, "Host not found.")


@pytest.mark.parametrize(
    ("reservation", "field"),
    [
        ({"subnet-id": 7, "duid": "01:02:03", "ip-address": "192.0.2.11"}, "duid"),
        ({"subnet-id": 7, "hw-address": "02:00:00:00:00:04", "ip-address": "2001:db8::1"}, "ip-address"),
        ({"subnet-id": 7, "hw-address": "02:00:00:00:00:04", "option-data": []}, "option-data"),
        ({"hw-address": "02:00:00:00:00:04", "ip-address": "192.0.2.11"}, "subnet-id"),
    ],
)
def test_a_reservation_that_cannot_be_kept_whole_is_refused(
    host: Host, reservation: dict[str, Any], field: str
) -> None:
    before = host.status()["subnets"]
    answer = host.command("reservation-add", reservation=reservation)
    assert answer["result"] == 1
    assert field in answer["text"]
    assert host.status()["subnets"] == before


def test_keas_own_reservation_commands_answer_as_kea_does(host: Host) -> None:
    added = {"subnet-id": 7, "hw-address": "02:00:00:00:00:05", "ip-address": "192.0.2.15", "hostname": "five"}
    assert host.command("reservation-add", reservation=added) == {"result": 0, "text": "Host added."}
    found = host.command("reservation-get", subnet_id=7, identifier_type="hw-address", identifier="02:00:00:00:00:05")
    assert (found["text"], found["arguments"]["ip-address"]) == ("Host found.", "192.0.2.15")
    page = host.command("reservation-get-page", subnet_id=7, limit=10)
    assert page["text"] == "2 IPv4 host(s) found."
    assert host.command("reservation-del", subnet_id=7, ip_address="192.0.2.15")["text"] == "Host deleted."
    again = host.command("reservation-del", subnet_id=7, ip_address="192.0.2.15")
    assert (again["result"], again["text"]) == (3, "Host not deleted (not found).")


@pytest.mark.parametrize("octets", [b"", b"{", b"[]", b"\x00\xff", b'{"command": "leasehold-apply"}', b"[" * 1000])
def test_what_is_no_command_leaves_kea_running(host: Host, octets: bytes) -> None:
    try:
        answer = host.raw_command(octets, timeout_s=5)
    except (ValueError, TimeoutError):
        answer = {"result": 1}  # Kea may answer nothing at all to what it cannot read
    assert answer["result"] != 0
    assert host.status()["subnets"][0]["count"] >= 1


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"unknown-clients": "maybe"}, "unknown-clients"),
        ({"event-queue": 0}, "event-queue"),
        ({"report-url": "ftp://192.0.2.1"}, "report-url"),
        ({"report-url": "http://192.0.2.1:8080"}, "report-token-file"),
        ({"report-url": "http://192.0.2.1:8080", "report-token-file": "/nowhere/token"}, "/nowhere/token"),
        ({"state-directory": "relative"}, "state-directory"),
        ({"state_directory": "/tmp"}, "state_directory"),  # noqa: S108
    ],
)
def test_a_bad_parameter_fails_the_load_with_a_sentence_that_names_it(
    lab: Lab, parameters: dict[str, object], named: str
) -> None:
    lab.network("blue")
    host = lab.host("host-a", {"blue": "192.0.2.1/24"})
    host.install(subnets=[SUBNET], parameters=parameters)
    with pytest.raises(RuntimeError) as ended:
        host.start()
    assert "LEASEHOLD_LOAD_FAILED" in str(ended.value)
    assert named in str(ended.value)
