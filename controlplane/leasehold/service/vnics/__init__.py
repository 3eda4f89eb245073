"""vNICs: what the engine creates, moves, starts, stops and deletes."""

from leasehold.service.vnics.changing import delete_vnic, move, put, put_all
from leasehold.service.vnics.importing import take_in, take_in_with
from leasehold.service.vnics.rows import get, list_vnics, writing
from leasehold.service.vnics.starting import change, settle, start, stop
from leasehold.service.vnics.syncing import sync
from leasehold.service.vnics.twinning import make_twins, part_twins

__all__ = [
    "change",
    "delete_vnic",
    "get",
    "list_vnics",
    "make_twins",
    "move",
    "part_twins",
    "put",
    "put_all",
    "settle",
    "start",
    "stop",
    "sync",
    "take_in",
    "take_in_with",
    "writing",
]
