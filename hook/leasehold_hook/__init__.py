"""Leasehold inside kea-dhcp4: control commands, journal, spool and reporter. Standard library only.

`main` is what the embedded interpreter imports; it and `native` alone touch Kea, through the border that
`native/leasehold.h` describes. Everything else is plain Python that is handed what it needs.
"""

__version__ = "0.1.0"
