"""Control commands: Leasehold's own, and Kea's `reservation-…` in the formats, results and texts of Kea's host_cmds.

Sources: Kea 3.0 Administrator Reference Manual, "libdhcp_host_cmds.so"; results in Kea's cc/command_interpreter.h.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from leasehold_hook.border import Border, Level, Withdrawal
from leasehold_hook.journal import Journal, JournalFailed, SubnetState, Taken
from leasehold_hook.reservations import (
    MAX_SUBNET_ID,
    Batch,
    InvalidField,
    Packed,
    Row,
    address_text,
    digest_of,
    digest_text,
    mac_text,
    pack_rows,
    parse_address,
    parse_hostname,
    parse_mac,
    parse_macs,
    parse_set,
)

SUCCESS, ERROR, UNSUPPORTED, EMPTY, CONFLICT = range(5)

_MAX_REVISION = 2**63 - 1
_MAX_PAGE_LIMIT = 2**32 - 1
_MAX_SOURCE_INDEX = 10
# Kea counts sources of reservations: its configuration is 0, the host data sources follow.
_OUR_SOURCE_INDEX = 1
_TARGETS = ("memory", "database", "all", "default")
_KEA_RESERVATION_FIELDS = ("subnet-id", "hw-address", "ip-address", "hostname")
_APPLY_ARGUMENTS = {"subnet-id", "epoch", "from-epoch", "base", "revision", "set", "unset"}
_REPLACE_ARGUMENTS = {"subnet-id", "epoch", "revision", "replace", "page", "last", "set"}
_NO_ADDRESS = address_text(0)
_HEXADECIMAL = re.compile(r"(?:0x)?([0-9a-fA-F]{12})")

Arguments = dict[str, Any]
Status = Callable[[], Arguments]


class Refused(Exception):
    """The command ends with this result and text; `arguments` go with them."""

    def __init__(self, result: int, text: str, arguments: Arguments | None = None) -> None:
        super().__init__(text)
        self.result = result
        self.arguments = arguments


@dataclass
class _Resync:
    epoch: str
    revision: int
    next_page: int = 1
    digest: int = 0


class Commands:
    """The commands, over one journal and the native store. Journal first: what it refuses, the store never sees."""

    def __init__(self, journal: Journal, border: Border, clock_ms: Callable[[], int], status: Status) -> None:
        """`clock_ms` gives milliseconds since the Unix epoch; `status` what `leasehold-status` adds to the subnets."""
        self._journal = journal
        self._border = border
        self._clock_ms = clock_ms
        self._status = status
        self._resyncs: dict[int, _Resync] = {}
        self._handlers: dict[str, Callable[[Arguments], Arguments]] = {
            "leasehold-apply": self._leasehold_apply,
            "leasehold-client-get": self._leasehold_client_get,
            "leasehold-status": self._leasehold_status,
            "reservation-add": self._reservation_add,
            "reservation-del": self._reservation_del,
            "reservation-get": self._reservation_get,
            "reservation-get-page": self._reservation_get_page,
        }

    def forget(self, subnet_ids: Sequence[int] = ()) -> None:
        """Be as if these subnets had never been heard of; the store is already. Where the journal cannot follow, each
        command begins with another try."""
        try:
            forgotten = self._journal.forget(subnet_ids, now_ms=self._clock_ms())
            for subnet_id in subnet_ids:
                # Its first pages were for a server that was to go on.
                self._drop_resync(subnet_id)
        except JournalFailed as error:
            if subnet_ids:
                self._border.log(
                    Level.ERROR,
                    "NOT_FORGOTTEN",
                    f"the reservations of subnets that left the configuration are served no more, but still on disk: "
                    f"{error}",
                )
            return
        if forgotten:
            self._border.log(
                Level.INFO,
                "FORGOTTEN",
                f"subnets {', '.join(map(str, forgotten))} left the configuration, and their reservations are gone; "
                "the control plane sends them again where they are wanted",
            )

    def answer(self, command: bytes) -> Arguments:
        """Carry out one command, as JSON, and return Kea's answer: `result`, `text` and, for most, `arguments`."""
        self.forget()
        try:
            name, arguments = _parse(command)
            handler = self._handlers.get(name)
            if handler is None:
                raise Refused(UNSUPPORTED, f"'{name}' command not supported.")
            return handler(arguments)
        except Refused as refusal:
            answer: Arguments = {"result": refusal.result, "text": str(refusal)}
            return answer if refusal.arguments is None else answer | {"arguments": refusal.arguments}
        except (InvalidField, Taken) as error:
            return {"result": ERROR, "text": str(error)}
        except JournalFailed as error:
            self._border.log(Level.ERROR, "JOURNAL_FAILED", str(error))
            return {"result": ERROR, "text": str(error)}

    # ---- Leasehold's own -------------------------------------------------------------------------------------------

    def _leasehold_apply(self, arguments: Arguments) -> Arguments:
        if arguments.get("replace", False) is not False:
            return self._replace(arguments)
        _only(arguments, _APPLY_ARGUMENTS | {"replace"})
        subnet_id = _integer(arguments, "subnet-id", 1, MAX_SUBNET_ID)
        epoch = _epoch(arguments)
        base = _integer(arguments, "base", 0, _MAX_REVISION)
        revision = _integer(arguments, "revision", 0, _MAX_REVISION)
        # From one history into another, or within one to mend it, revisions may fall.
        of_epoch = _epoch(arguments, "from-epoch") if "from-epoch" in arguments else epoch
        if "from-epoch" not in arguments and revision <= base:
            raise InvalidField(f"revision: {revision} is not greater than base, {base}")
        batch = parse_set(arguments.get("set", []), "set")
        unset = parse_macs(arguments.get("unset", []), "unset")
        state = self._journal.state(subnet_id)
        if base != state.revision or (state.epoch and of_epoch != state.epoch):
            raise Refused(
                CONFLICT,
                f"subnet {subnet_id} is at revision {state.revision} of epoch '{state.epoch}', "
                f"not at base {base} of epoch '{of_epoch}'; nothing was changed",
                self._in_force(state),
            )
        # Its set would take this back.
        self._drop_resync(subnet_id)
        self._change(SubnetState(subnet_id, epoch, revision), batch, unset)
        return self._applied(subnet_id, f"{len(batch.rows)} set, {len(unset)} unset.")

    def _replace(self, arguments: Arguments) -> Arguments:
        _only(arguments, _REPLACE_ARGUMENTS)
        if arguments["replace"] is not True:
            raise InvalidField(f"replace: {arguments['replace']!r} is not true or false")
        subnet_id = _integer(arguments, "subnet-id", 1, MAX_SUBNET_ID)
        epoch = _epoch(arguments)
        revision = _integer(arguments, "revision", 0, _MAX_REVISION)
        page = _integer(arguments, "page", 1, _MAX_REVISION)
        last = _required(arguments, "last")
        if not isinstance(last, bool):
            raise InvalidField(f"last: {last!r} is not true or false")
        batch = parse_set(_required(arguments, "set"), "set")
        state = self._journal.state(subnet_id)
        if epoch == state.epoch and revision < state.revision:
            # It was on its way, or its sender stood still, while others went on: what they withdrew must stay so.
            self._drop_resync(subnet_id)
            raise Refused(
                CONFLICT,
                f"subnet {subnet_id} is at revision {state.revision} of epoch '{epoch}' already; a resync to revision "
                f"{revision} comes too late, and nothing was changed",
                self._in_force(state),
            )
        if page == 1:
            self._drop_resync(subnet_id)
            self._resyncs[subnet_id] = _Resync(epoch, revision)
        resync = self._resyncs.get(subnet_id)
        if resync is None or (epoch, revision, page) != (resync.epoch, resync.revision, resync.next_page):
            self._drop_resync(subnet_id)
            raise Refused(
                CONFLICT,
                f"page {page} of revision {revision} of epoch '{epoch}' does not follow "
                f"{_where(resync)} of subnet {subnet_id}; start again with page 1",
                self._in_force(self._journal.state(subnet_id)),
            )
        self._journal.stage(subnet_id, batch)
        resync.next_page += 1
        resync.digest ^= batch.digest
        if not last:
            return self._applied(subnet_id, f"page {page} kept until the last.")
        now_ms = self._clock_ms()
        until_ms = self._withdrawn_until(subnet_id, now_ms)
        new = SubnetState(subnet_id, epoch, revision, digest=resync.digest)
        del self._resyncs[subnet_id]
        try:
            packed = self._journal.replace(new, now_ms=now_ms, until_ms=until_ms)
        except JournalFailed:
            self._journal.drop_staged(subnet_id)
            raise
        self._store(subnet_id, packed, [], until_ms)
        return self._applied(subnet_id, f"{packed.count} set in place of all.")

    def _leasehold_client_get(self, arguments: Arguments) -> Arguments:
        _only(arguments, {"hw-address"})
        mac = parse_mac(_required(arguments, "hw-address"), "hw-address")
        client = self._border.client(mac)
        if client is None:
            raise Refused(ERROR, "Kea's lease database cannot be read; see Kea's log")
        count = len(client["subnets"])
        return {
            "result": SUCCESS if count else EMPTY,
            "text": f"{mac_text(mac)} is known on {count} subnet(s).",
            "arguments": {"hw-address": mac_text(mac)} | client,
        }

    def _leasehold_status(self, arguments: Arguments) -> Arguments:
        _only(arguments, set())
        subnets = [self._in_force(state) for _, state in sorted(self._journal.subnets.items())]
        return {"result": SUCCESS, "text": "Leasehold is in force.", "arguments": self._status() | {"subnets": subnets}}

    # ---- Kea's -----------------------------------------------------------------------------------------------------

    def _reservation_add(self, arguments: Arguments) -> Arguments:
        _only(arguments, {"reservation", "operation-target"})
        _check_target(arguments)
        reservation = arguments.get("reservation")
        if reservation is None:
            raise Refused(ERROR, "reservation must be specified")
        if not isinstance(reservation, dict):
            raise InvalidField(f"reservation: {reservation!r} is not a map")
        for name in reservation:
            if name not in _KEA_RESERVATION_FIELDS:
                raise Refused(ERROR, f"unsupported configuration parameter '{name}': Leasehold does not keep it")
        if "subnet-id" not in reservation:
            raise Refused(ERROR, "Mandatory 'subnet-id' parameter missing.")
        subnet_id = _subnet_id(reservation)
        mac = parse_mac(_required(reservation, "hw-address"), "hw-address")
        address = parse_address(_required(reservation, "ip-address"), "ip-address")
        hostname = parse_hostname(reservation.get("hostname", ""), "hostname")
        failed = f"failed to add new host using the HW address '{mac_text(mac)}' to the IPv4 subnet id '{subnet_id}'"
        if self._journal.by_mac(subnet_id, mac) is not None:
            raise Refused(ERROR, f"{failed} as this host has already been added")
        holder = self._journal.by_address(subnet_id, address)
        if holder is not None:
            raise Refused(
                ERROR,
                f"{failed} for the address {address_text(address)}: There's already a reservation for this address, "
                f"held by '{mac_text(holder[0])}'",
            )
        row = (mac, address, hostname)
        self._change(self._journal.state(subnet_id), Batch([row], digest_of([row])), [])
        return {"result": SUCCESS, "text": "Host added."}

    def _reservation_del(self, arguments: Arguments) -> Arguments:
        _check_target(arguments)
        subnet_id, row = self._find(arguments)
        if row is None:
            raise Refused(EMPTY, "Host not deleted (not found).")
        self._change(self._journal.state(subnet_id), Batch([], 0), [row[0]])
        return {"result": SUCCESS, "text": "Host deleted."}

    def _reservation_get(self, arguments: Arguments) -> Arguments:
        _check_target(arguments)
        subnet_id, row = self._find(arguments)
        if row is None:
            raise Refused(EMPTY, "Host not found.")
        return {"result": SUCCESS, "text": "Host found.", "arguments": _host(subnet_id, row)}

    def _reservation_get_page(self, arguments: Arguments) -> Arguments:
        _only(arguments, {"subnet-id", "limit", "source-index", "from"})
        arguments = {"source-index": 0, "from": 0} | arguments
        limit = _kea_integer(arguments, "limit", 0, _MAX_PAGE_LIMIT)
        subnet_id = _subnet_id(arguments) if "subnet-id" in arguments else None
        source_index = _kea_integer(arguments, "source-index", 0, _MAX_SOURCE_INDEX)
        after = _kea_integer(arguments, "from", -(2**63), 2**63 - 1)
        if limit == 0:
            raise Refused(ERROR, "page size of retrieved hosts must not be 0")
        if source_index < _OUR_SOURCE_INDEX:
            after = 0
        found = []
        if source_index <= _OUR_SOURCE_INDEX:
            found = self._journal.page(subnet_id, divmod(after % 2**64, 2**32), limit)
        page: Arguments = {"count": len(found), "hosts": [_host(found_on, row) for found_on, row in found]}
        if found:
            page["next"] = {"source-index": _OUR_SOURCE_INDEX, "from": _host_id(found[-1][0], found[-1][1][1])}
        return {
            "result": SUCCESS if found else EMPTY,
            "text": f"{len(found)} IPv4 host(s) found.",
            "arguments": page,
        }

    def _find(self, arguments: Arguments) -> tuple[int, Row | None]:
        """The subnet's id, and the reservation that the arguments of -get and -del point at."""
        _only(arguments, {"subnet-id", "ip-address", "identifier-type", "identifier", "operation-target"})
        address, kind, identifier = (arguments.get(name) for name in ("ip-address", "identifier-type", "identifier"))
        subnet_id = _subnet_id(arguments)
        if address is not None:
            if not isinstance(address, str):
                raise Refused(ERROR, "'ip-address' is not a string.")
            return subnet_id, self._journal.by_address(subnet_id, parse_address(address, "ip-address"))
        for name, value in (("identifier-type", kind), ("identifier", identifier)):
            if not isinstance(value, str):
                raise Refused(ERROR, f"No 'ip-address' provided and '{name}' is either missing or not a string.")
        if kind != "hw-address":
            if kind in ("duid", "circuit-id", "client-id", "flex-id"):
                return subnet_id, None
            raise Refused(ERROR, "Value of 'identifier-type' was not recognized.")
        bare = _HEXADECIMAL.fullmatch(str(identifier))
        mac = int(bare.group(1), 16) if bare else parse_mac(identifier, "identifier")
        return subnet_id, self._journal.by_mac(subnet_id, mac)

    # ---- shared ----------------------------------------------------------------------------------------------------

    def _change(self, new: SubnetState, batch: Batch, unset: list[int]) -> None:
        now_ms = self._clock_ms()
        until_ms = self._withdrawn_until(new.subnet_id, now_ms)
        withdrawals = self._journal.apply(new, batch, unset, now_ms=now_ms, until_ms=until_ms)
        self._store(new.subnet_id, pack_rows(batch.rows), withdrawals, None)

    def _withdrawn_until(self, subnet_id: int, now_ms: int) -> int:
        return now_ms + 1000 * self._border.longest_lifetime_s(subnet_id)

    def _store(
        self, subnet_id: int, packed: Packed, withdrawals: list[Withdrawal], replaced_until_ms: int | None
    ) -> None:
        count = self._border.store_apply(subnet_id, packed, withdrawals, replaced_until_ms)
        promised = self._journal.state(subnet_id).count
        if count != promised:
            text = (
                f"the packet path has {count} reservations of subnet {subnet_id} where the journal has {promised}: "
                "a defect of Leasehold; restart kea-dhcp4 to serve what the journal says, and report it"
            )
            self._border.log(Level.ERROR, "STORE_DIFFERS", text)
            raise Refused(ERROR, text)
        if not self._border.leases_settled(subnet_id):
            raise Refused(
                ERROR,
                f"the reservations of subnet {subnet_id} are changed, but leases of those who lost theirs could not be "
                "deleted, as Kea's log says; until that is done, the subnet counts as never heard of",
            )

    def _applied(self, subnet_id: int, text: str) -> Arguments:
        state = self._journal.state(subnet_id)
        self._border.log(Level.DEBUG, "APPLIED", f"subnet {subnet_id} at revision {state.revision}: {text}")
        return {"result": SUCCESS, "text": text, "arguments": self._in_force(state)}

    def _in_force(self, state: SubnetState) -> Arguments:
        """The state as it is told. What was withdrawn counts as gone with its revision, and so must its leases be."""
        is_whole = self._border.leases_settled(state.subnet_id)
        return {
            "subnet-id": state.subnet_id,
            "epoch": state.epoch if is_whole else "",
            "revision": state.revision if is_whole else 0,
            "count": state.count,
            "digest": digest_text(state.digest),
        }

    def _drop_resync(self, subnet_id: int) -> None:
        self._resyncs.pop(subnet_id, None)
        self._journal.drop_staged(subnet_id)


def _parse(command: bytes) -> tuple[str, Arguments]:
    try:
        parsed = json.loads(command)
    except (ValueError, RecursionError) as error:
        raise Refused(ERROR, f"the command is not JSON: {error}") from None
    name = parsed.get("command") if isinstance(parsed, dict) else None
    if not isinstance(name, str):
        raise Refused(ERROR, "the command has no name")
    arguments = parsed.get("arguments", {})
    if not isinstance(arguments, dict):
        raise Refused(ERROR, "Parameters missing or are not a map.")
    return name, arguments


def _only(arguments: Arguments, names: set[str]) -> None:
    for name in arguments:
        if name not in names:
            known = ", ".join(sorted(names)) or "none"
            raise InvalidField(f"{name}: is not an argument of this command, which takes: {known}")


def _required(arguments: Arguments, name: str) -> Any:
    if name not in arguments:
        raise InvalidField(f"{name}: is missing")
    return arguments[name]


def _integer(arguments: Arguments, name: str, least: int, most: int) -> int:
    value = _required(arguments, name)
    if type(value) is not int or not least <= value <= most:
        raise InvalidField(f"{name}: {value!r} is not an integer from {least} to {most}")
    return value


def _epoch(arguments: Arguments, name: str = "epoch") -> str:
    value = _required(arguments, name)
    if not isinstance(value, str) or not 1 <= len(value) <= 64:
        raise InvalidField(f"{name}: {value!r} is not a text of 1 to 64 characters")
    return value


def _kea_integer(arguments: Arguments, name: str, least: int, most: int) -> int:
    """As Kea's SimpleParser::getInteger, with its texts."""
    if name not in arguments:
        raise Refused(ERROR, f"missing parameter '{name}'")
    value = arguments[name]
    if type(value) is not int:
        raise Refused(ERROR, f"invalid type specified for parameter '{name}'")
    if not least <= value <= most:
        raise Refused(ERROR, f"The '{name}' value ({value}) is not within expected range: ({least} - {most})")
    return value


def _subnet_id(arguments: Arguments) -> int:
    value = _kea_integer(arguments, "subnet-id", 0, MAX_SUBNET_ID)
    if value == 0:
        raise Refused(ERROR, "subnet-id: 0 means global reservations, which Leasehold does not keep; name a subnet")
    return value


def _check_target(arguments: Arguments) -> None:
    target = arguments.get("operation-target", "default")
    if target not in _TARGETS:
        raise Refused(
            ERROR,
            f"The 'operation-target' value ({target}) is not within expected set: ({', '.join(_TARGETS)})",
        )
    if target == "memory":
        raise Refused(
            ERROR,
            "The 'operation-target' value (memory) means Kea's configuration, where Leasehold keeps no reservations; "
            "use database, all or default",
        )


def _where(resync: _Resync | None) -> str:
    if resync is None:
        return "any page"
    return f"page {resync.next_page - 1} of revision {resync.revision} of epoch '{resync.epoch}'"


def _host_id(subnet_id: int, address: int) -> int:
    """A reservation's place among all, as the 64-bit signed integer that Kea's JSON can carry."""
    number = subnet_id << 32 | address
    return number if number < 2**63 else number - 2**64


def _host(subnet_id: int, row: Row) -> Arguments:
    """A reservation as Kea's Host::toElement4 writes one."""
    mac, address, hostname = row
    return {
        "boot-file-name": "",
        "client-classes": [],
        "hostname": hostname,
        "hw-address": mac_text(mac),
        "ip-address": address_text(address),
        "next-server": _NO_ADDRESS,
        "option-data": [],
        "server-hostname": "",
        "subnet-id": subnet_id,
    }
