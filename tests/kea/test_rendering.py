"""What becomes of a Kea configuration: ours in it, and the administrator's as it was."""

import copy
import json
from dataclasses import replace
from typing import Any

from netaddr import IPAddress

from kea.served import BLUE, BLUE_TWICE, GREEN
from leasehold.domain.placement import Served
from leasehold.domain.values import HostNetwork
from leasehold.kea.rendering import Difference, differences, render

ADMINISTRATORS: dict[str, Any] = {
    "authoritative": False,
    "interfaces-config": {"interfaces": ["eth9"], "re-detect": True},
    "loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}],
    "option-data": [{"name": "domain-search", "data": "example.com"}],
    "shared-networks": [{"name": "offices", "subnet4": [{"id": 910, "subnet": "10.11.0.0/24"}]}],
    "subnet4": [
        {"id": 900, "subnet": "10.9.0.0/24", "pools": [{"pool": "10.9.0.10-10.9.0.20"}], "user-context": {"rack": 7}},
        {"id": 901, "subnet": "10.10.0.0/24"},
    ],
    "user-context": {"owner": "network team"},
    "valid-lifetime": 7200,
}


def test_a_subnet_of_ours() -> None:
    assert render({}, [BLUE])["subnet4"] == [
        {
            "id": 7,
            "subnet": "192.0.2.0/24",
            "interface": "eth-blue",
            "valid-lifetime": 600,
            "min-valid-lifetime": 600,
            "max-valid-lifetime": 600,
            "match-client-id": False,
            "authoritative": True,
            "reservations-global": False,
            "reservations-in-subnet": True,
            "reservations-out-of-pool": True,
            "reservations": [],
            "pools": [],
            "option-data": [
                {"name": "routers", "data": "192.0.2.1"},
                {"name": "domain-name-servers", "data": "192.0.2.53, 192.0.2.54"},
                {"name": "domain-name", "data": "blue.example"},
                {"name": "ntp-servers", "data": "192.0.2.123"},
            ],
            "user-context": {"leasehold": {"network": "blue"}},
        }
    ]


def test_several_subnets_of_a_network_are_a_shared_network() -> None:
    rendered = render({}, [BLUE_TWICE])
    (network,) = rendered["shared-networks"]
    assert "subnet4" not in rendered
    assert (network["name"], network["interface"], network["authoritative"]) == ("leasehold:blue", "eth-blue", True)
    assert network["user-context"] == {"leasehold": {"network": "blue"}}
    assert [each["id"] for each in network["subnet4"]] == [7, 9]
    assert network["subnet4"][0] == render({}, [BLUE])["subnet4"][0]


def test_every_further_option_is_given_as_octets() -> None:
    (network,) = render({}, [BLUE_TWICE])["shared-networks"]
    assert network["subnet4"][1]["option-data"] == [
        {"name": "routers", "data": "203.0.113.1"},
        {"name": "interface-mtu", "data": "1400"},
        {"code": 66, "csv-format": False, "data": "626F6F742E6578616D706C65"},
        {"code": 121, "csv-format": False, "data": "080ACB00710900CB007101"},
        {"code": 224, "csv-format": False, "data": "0A0B"},
    ]


def test_a_second_subnet_comes_and_goes() -> None:
    served = render(ADMINISTRATORS, [BLUE, GREEN])
    both = render(served, [BLUE_TWICE, GREEN])
    assert [each["id"] for each in both["subnet4"]] == [900, 901, 8]
    assert both["shared-networks"][:-1] == ADMINISTRATORS["shared-networks"]
    assert render(both, [BLUE_TWICE, GREEN]) == both
    again = render(both, [BLUE, GREEN])
    assert again["shared-networks"] == ADMINISTRATORS["shared-networks"]
    assert [each["id"] for each in again["subnet4"]] == [900, 901, 8, 7]
    assert json.dumps(render(both, [])) == json.dumps(ADMINISTRATORS)


def test_options_that_a_subnet_has_not_are_left_out() -> None:
    assert render({}, [GREEN])["subnet4"][0]["option-data"] == []


def test_the_administrators_part_is_not_touched() -> None:
    rendered = render(ADMINISTRATORS, [BLUE, GREEN])
    assert [each for each in rendered["subnet4"] if each["id"] >= 900] == ADMINISTRATORS["subnet4"]
    for key in ("authoritative", "loggers", "option-data", "valid-lifetime"):
        assert rendered[key] == ADMINISTRATORS[key]
    assert rendered["user-context"]["owner"] == "network team"
    assert rendered["interfaces-config"]["re-detect"] is True


def test_what_was_given_is_not_changed_in_place() -> None:
    before = copy.deepcopy(ADMINISTRATORS)
    render(ADMINISTRATORS, [BLUE])
    assert before == ADMINISTRATORS


def test_to_serve_and_then_not_to_leaves_the_same_text_behind() -> None:
    served = render(ADMINISTRATORS, [BLUE, GREEN])
    assert json.dumps(render(served, [])) == json.dumps(ADMINISTRATORS)


def test_what_is_served_already_is_not_changed() -> None:
    served = render(ADMINISTRATORS, [BLUE])
    assert render(served, [BLUE]) == served


def test_defaults_that_kea_fills_in_are_no_change() -> None:
    served = render(ADMINISTRATORS, [BLUE])
    filled = copy.deepcopy(served)
    ours = filled["subnet4"][-1]
    ours |= {"t1-percent": 0.5, "relay": {"ip-addresses": []}}
    ours["option-data"] = [each | {"always-send": False, "space": "dhcp4"} for each in ours["option-data"]]
    assert render(filled, [BLUE]) == filled


def test_a_changed_option_is_a_change() -> None:
    served = render(ADMINISTRATORS, [BLUE])
    ((subnet_id, spec),) = BLUE.subnets
    assert spec is not None
    changed = replace(BLUE, subnets=((subnet_id, replace(spec, domain="other.example")),))
    assert {"name": "domain-name", "data": "other.example"} in render(served, [changed])["subnet4"][-1]["option-data"]


def kept(served: Served) -> Served:
    """As the host has it; its attachment is another by now."""
    return replace(
        served,
        attachment=HostNetwork(interface="eth-other", address=IPAddress("192.0.2.3")),
        subnets=tuple((subnet_id, None) for subnet_id, _ in served.subnets),
    )


def test_what_is_to_stay_as_it_is_does() -> None:
    for before in ([BLUE, GREEN], [BLUE_TWICE, GREEN]):
        served = render(ADMINISTRATORS, before)
        assert render(served, [kept(each) for each in before]) == served
        assert render(served, [kept(before[0])]) == render(served, before[:1])
        assert render(served, [kept(before[0]), GREEN]) == served


def test_a_subnet_stays_as_it_is_beside_a_new_one_of_its_network() -> None:
    served = render(ADMINISTRATORS, [BLUE])
    (first, second) = BLUE_TWICE.subnets
    (network,) = render(served, [replace(BLUE_TWICE, subnets=((first[0], None), second))])["shared-networks"][1:]
    assert network == render(served, [BLUE_TWICE])["shared-networks"][1]


def test_what_is_to_stay_and_is_not_there_is_not_served() -> None:
    assert render(ADMINISTRATORS, [kept(BLUE)]) == ADMINISTRATORS


def test_a_pool_that_somebody_put_into_our_subnet_goes() -> None:
    served = render(ADMINISTRATORS, [BLUE])
    served["subnet4"][-1]["pools"] = [{"pool": "192.0.2.100-192.0.2.200"}]
    assert render(served, [BLUE])["subnet4"][-1]["pools"] == []


def test_an_interface_is_added_and_noted_as_ours() -> None:
    rendered = render(ADMINISTRATORS, [BLUE])
    assert rendered["interfaces-config"]["interfaces"] == ["eth9", "eth-blue"]
    assert rendered["user-context"]["leasehold"]["interfaces"] == ["eth-blue"]


def test_an_interface_of_the_administrators_stays_theirs() -> None:
    for listed in ("eth-blue", "eth-blue/192.0.2.2", "*"):
        running = {**ADMINISTRATORS, "interfaces-config": {"interfaces": [listed]}}
        rendered = render(running, [BLUE])
        assert rendered["interfaces-config"]["interfaces"] == [listed]
        assert "interfaces" not in rendered["user-context"]["leasehold"]


def test_the_interface_of_a_network_that_is_not_served_any_more_goes() -> None:
    both = render(ADMINISTRATORS, [BLUE, GREEN])
    rendered = render(both, [GREEN])
    assert rendered["interfaces-config"]["interfaces"] == ["eth9", "eth-green"]
    assert rendered["user-context"]["leasehold"]["interfaces"] == ["eth-green"]


def test_an_interface_that_is_down_is_tried_again_unless_the_administrator_says_how_often() -> None:
    rendered = render(ADMINISTRATORS, [BLUE])
    assert rendered["interfaces-config"]["service-sockets-max-retries"] > 0
    assert render(rendered, [BLUE]) == rendered
    assert render(rendered, []) == ADMINISTRATORS
    theirs = {**ADMINISTRATORS, "interfaces-config": {"interfaces": ["eth9"], "service-sockets-max-retries": 3}}
    assert render(theirs, [BLUE])["interfaces-config"]["service-sockets-max-retries"] == 3
    assert render(render(theirs, [BLUE]), []) == theirs


def test_a_configuration_without_anything() -> None:
    rendered = render({}, [BLUE])
    assert rendered["interfaces-config"]["interfaces"] == ["eth-blue"]
    assert render(rendered, [])["subnet4"] == []


def told(running: dict[str, Any], *served: Served) -> list[str]:
    return [each.what for each in differences(running, render(running, served))]


def test_where_nothing_is_to_change_nothing_differs() -> None:
    for served in ([BLUE, GREEN], [BLUE_TWICE]):
        assert told(render(ADMINISTRATORS, served), *served) == []
    assert told(ADMINISTRATORS) == []


def test_a_setting_that_differs_is_told_with_what_runs_and_what_is_wanted() -> None:
    served = render(ADMINISTRATORS, [BLUE])
    served["subnet4"][-1]["valid-lifetime"] = 7
    assert differences(served, render(served, [BLUE])) == [
        Difference(what="valid-lifetime of subnet 7", runs=7, wanted=600)
    ]
    twice = render(ADMINISTRATORS, [BLUE_TWICE])
    twice["shared-networks"][-1]["subnet4"][1]["pools"] = [{"pool": "203.0.113.5 - 203.0.113.9"}]
    assert told(twice, BLUE_TWICE) == ["pools of subnet 9"]


def test_what_is_there_too_much_or_not_at_all_differs() -> None:
    served = render(ADMINISTRATORS, [BLUE])
    assert told(served, BLUE, GREEN) == ["subnet 8", "interfaces-config", "leasehold of user-context"]
    assert told(served) == ["subnet 7", "interfaces-config", "leasehold of user-context"]
    assert told(served, BLUE_TWICE) == ["shared network leasehold:blue", "subnet 9"]
    twice = render(ADMINISTRATORS, [BLUE_TWICE])
    twice["shared-networks"][-1]["subnet4"].reverse()
    assert told(twice, BLUE_TWICE) == ["subnet4 of shared network leasehold:blue"]


def test_whatever_render_changes_differs() -> None:
    """An interface that somebody took away is no subnet, and is told all the same."""
    served = render(ADMINISTRATORS, [BLUE])
    served["interfaces-config"] = ADMINISTRATORS["interfaces-config"]
    assert told(served, BLUE) == ["interfaces-config"]
