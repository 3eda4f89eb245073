"""The laboratory: hypervisor hosts with a real Kea, and guests with real DHCP clients, as Linux network namespaces.

Everything runs inside a sandbox (`lab.sandbox`), so that nothing is left behind however a run ends, and two runs never
meet. Start at `Lab`.
"""

from lab.host import Host
from lab.lab import Lab
from lab.vm import Lease, Vm
from lab.waiting import wait_until

__all__ = ["Host", "Lab", "Lease", "Vm", "wait_until"]
