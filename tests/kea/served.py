"""Networks as a host serves them."""

from netaddr import IPAddress, IPNetwork

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
GREEN = Served(
    network="green",
    attachment=HostNetwork(interface="eth-green", address=IPAddress("198.51.100.2")),
    subnets=((8, SubnetSpec(network="green", cidr=IPNetwork("198.51.100.0/24"))),),
)
