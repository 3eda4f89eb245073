"""Networks as a host serves them."""

from dataclasses import replace

from netaddr import IPAddress, IPNetwork

from leasehold.domain.options import Route, parse_option
from leasehold.domain.placement import Served
from leasehold.domain.values import HostNetwork, SubnetSpec

BLUE = Served(
    network="blue",
    attachment=HostNetwork(interface="eth-blue", address=IPAddress("192.0.2.2")),
    subnets=(
        (
            7,
            SubnetSpec(
                network="blue",
                cidr=IPNetwork("192.0.2.0/24"),
                gateway=IPAddress("192.0.2.1"),
                dns=(IPAddress("192.0.2.53"), IPAddress("192.0.2.54")),
                ntp=(IPAddress("192.0.2.123"),),
                domain="blue.example",
                lease_time_s=600,
            ),
        ),
    ),
)
SECOND = SubnetSpec(
    network="blue",
    cidr=IPNetwork("203.0.113.0/24"),
    gateway=IPAddress("203.0.113.1"),
    mtu=1400,
    routes=(Route(destination=IPNetwork("10.0.0.0/8"), gateway=IPAddress("203.0.113.9")),),
    options=(parse_option("o", "boot.example", code=66), parse_option("o", "0a0b", code=224)),
    lease_time_s=600,
)
"""With everything that a subnet can have besides."""
BLUE_TWICE = replace(BLUE, subnets=(*BLUE.subnets, (9, SECOND)))
GREEN = Served(
    network="green",
    attachment=HostNetwork(interface="eth-green", address=IPAddress("198.51.100.2")),
    subnets=((8, SubnetSpec(network="green", cidr=IPNetwork("198.51.100.0/24"))),),
)
