#!/usr/bin/python3 -IS
"""What udhcpc calls at each event: does to the interface what is said, then appends the event as a line of JSON.

udhcpc gives the event as the argument, and what the server sent as environment variables (udhcpc(8)). The lines go to
the file that the variable EVENTS names.
"""

import json
import os
import subprocess
import sys
import time

_TOLD = ("interface", "ip", "mask", "router", "dns", "ntpsrv", "domain", "hostname", "serverid", "lease", "message")


def main() -> None:
    event = sys.argv[1]
    told = {name: os.environ[name] for name in _TOLD if name in os.environ}
    interface = told.pop("interface")
    if event in ("deconfig", "bound"):
        _ip("address", "flush", "dev", interface)
    if event == "deconfig":
        _ip("link", "set", interface, "up")
    if event in ("bound", "renew"):
        _ip("address", "replace", f"{told['ip']}/{told['mask']}", "dev", interface)
        for router in told.get("router", "").split():
            _ip("route", "replace", "default", "via", router, "dev", interface)
    line = {"event": event, "at": time.time()} | told
    # One write(2) of one line: the laboratory never reads half an event.
    descriptor = os.open(os.environ["EVENTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, json.dumps(line).encode() + b"\n")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


if __name__ == "__main__":
    main()
