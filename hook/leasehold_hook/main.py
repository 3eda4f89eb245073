"""What C++ calls, see `native/leasehold.h`. Imported by the interpreter that the library embeds."""

import threading
import traceback
from types import TracebackType
from typing import Any

from _leasehold import ffi
from leasehold_hook.border import Level
from leasehold_hook.hook import Hook, failure
from leasehold_hook.native import Native

CData = Any

_native = Native()
_hook = Hook(_native)
# A text that C++ was given stays valid until the next of its kind.
_given: dict[str, CData] = {}

_FAILED = "failed in a way that is a defect of Leasehold; Kea's log has the details"


def _give(kind: str, text: bytes) -> CData:
    _given[kind] = ffi.new("char[]", text)
    return _given[kind]


def _log_defect(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    _native.log(Level.ERROR, "DEFECT", "".join(traceback.format_exception(kind, error, where)))


def _log_thread_defect(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _log_defect(args.exc_type, args.exc_value, args.exc_traceback)


def _load_failed(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> CData:
    _log_defect(kind, error, where)
    return _give("load", f"loading {_FAILED}: {error!r}".encode())


def _command_failed(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> CData:
    _log_defect(kind, error, where)
    return _give("command", failure(f"the command {_FAILED}: {error!r}"))


@ffi.def_extern(onerror=_load_failed)
def leasehold_load(parameters_json: CData) -> CData:
    refusal = _hook.load(ffi.string(parameters_json).decode())
    return ffi.NULL if refusal is None else _give("load", refusal.encode(errors="replace"))


@ffi.def_extern(onerror=_log_defect)
def leasehold_configured() -> None:
    _hook.configured()


@ffi.def_extern(onerror=_log_defect)
def leasehold_forget(subnet_ids: CData, count: int) -> None:
    _hook.forget(list(subnet_ids[0:count]))


@ffi.def_extern(onerror=_log_defect)
def leasehold_unload() -> None:
    _hook.unload()


@ffi.def_extern(error=_give("last resort", failure(f"the command {_FAILED}")), onerror=_command_failed)
def leasehold_command(command_json: CData) -> CData:
    return _give("command", _hook.command(ffi.string(command_json)))


threading.excepthook = _log_thread_defect
