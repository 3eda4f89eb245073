"""`leasehold explain`."""

import json

from cli.conftest import Run

MAC = "02:00:00:00:00:01"


def test_the_sentence_and_what_to_do_come_first(run: Run) -> None:
    run("vnic", "put", "v", "--vm", "web-1", "--name", "nic1", "--mac", MAC)
    said = run("explain", MAC)
    assert said.exit_code == 0
    sentence, advice = said.stdout.splitlines()[:2]
    assert "vNIC v of VM web-1" in sentence
    assert "no subnet" in sentence
    assert advice.endswith(".")


def test_programs_get_what_the_api_answers(run: Run) -> None:
    (found,) = json.loads(run("explain", MAC, "--json").stdout)
    assert found["verdict"]["cause"] == "mac-unknown"
    assert found["evidence"]["mac"] == MAC


def test_an_address_that_nobody_has_ends_with_4(run: Run) -> None:
    said = run("explain", "192.0.2.1")
    assert said.exit_code == 4
    assert "192.0.2.1" in said.stderr


def test_what_is_neither_mac_nor_ip_ends_with_3(run: Run) -> None:
    assert run("explain", "web-1").exit_code == 3
