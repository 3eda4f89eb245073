"""The hook's parameters, parsed once from Kea's configuration."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from leasehold_hook.border import UNKNOWN_CLIENTS

if TYPE_CHECKING:
    import ssl

DEFAULT_STATE_DIRECTORY = Path("/var/lib/kea/leasehold")


class InvalidParameter(ValueError):
    """The message names the parameter, its value, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What an administrator can set; see hook/README.md."""

    host_id: str
    state_directory: Path = DEFAULT_STATE_DIRECTORY
    unknown_clients: str = "reject"
    event_queue: int = 65_536
    rejection_window: int = 10
    rejection_table: int = 4_096
    report_url: str | None = None
    report_token_file: Path | None = None
    report_ca_file: Path | None = None
    spool_limit: int = 64 * 2**20

    @classmethod
    def parse(cls, text: str) -> "Parameters":
        """From the JSON map in Kea's configuration; raises InvalidParameter."""
        given = json.loads(text)
        if given is None:
            given = {}
        if not isinstance(given, dict):
            raise InvalidParameter(f"parameters: {given!r} is not a map; write them as a map of names to values")
        for name in given:
            if name not in _PARSERS:
                raise InvalidParameter(f"{name}: is not a parameter; remove it, or use one of {', '.join(_PARSERS)}")
        if "host-id" not in given:
            raise InvalidParameter("host-id: is missing; set it to this host's id at the control plane")
        parameters = cls(**{name.replace("-", "_"): _PARSERS[name](name, value) for name, value in given.items()})
        parameters._check_report()
        return parameters

    def read_token(self) -> str:
        """The bearer token, as the file has it now; raises InvalidParameter, which never quotes it."""
        path = self.report_token_file
        if path is None:
            raise InvalidParameter("report-token-file: is missing; name the file with the token for report-url")
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it has octets that are not ASCII"
            raise InvalidParameter(
                f"report-token-file: {str(path)!r} cannot be read ({why}); give Kea's user a readable file"
            ) from None
        if not token or not token.isprintable() or " " in token:
            raise InvalidParameter(f"report-token-file: {str(path)!r} does not hold one token; write it on one line")
        return token

    def tls_context(self) -> "ssl.SSLContext":
        """What https servers are verified with; raises InvalidParameter."""
        import ssl  # slow to import, and of use with https only

        try:
            return ssl.create_default_context(cafile=self.report_ca_file)
        except OSError as error:  # SSLError is one
            raise InvalidParameter(
                f"report-ca-file: {str(self.report_ca_file)!r} cannot be used ({error}); "
                "name a file of CA certificates in PEM"
            ) from None

    def _check_report(self) -> None:
        if self.report_url is None:
            return
        self.read_token()
        if self.report_url.startswith("https:"):
            self.tls_context()
        elif self.report_ca_file is not None:
            raise InvalidParameter(
                f"report-ca-file: {str(self.report_ca_file)!r} is of no use with report-url {self.report_url!r}; "
                "use https, or remove it"
            )


def _host_id(name: str, value: Any) -> str:
    if isinstance(value, str) and value.isprintable() and 1 <= len(value) <= 255:
        return value
    raise InvalidParameter(f"{name}: {value!r} is not an id; set it to this host's id at the control plane")


def _path(name: str, value: Any) -> Path:
    if isinstance(value, str) and value.startswith("/") and value.isprintable():
        return Path(value)
    raise InvalidParameter(f"{name}: {value!r} is not an absolute path; write one that starts with '/'")


def _unknown_clients(name: str, value: Any) -> str:
    if isinstance(value, str) and value in UNKNOWN_CLIENTS:
        return value
    raise InvalidParameter(f"{name}: {value!r} is not known; use one of {', '.join(UNKNOWN_CLIENTS)}")


def _integer(least: int, most: int, unit: str) -> Callable[[str, Any], int]:
    def parse(name: str, value: Any) -> int:
        if type(value) is int and least <= value <= most:
            return value
        raise InvalidParameter(f"{name}: {value!r} is not a number of {unit}; use an integer from {least} to {most}")

    return parse


def _url(name: str, value: Any) -> str:
    advice = "write one like https://leasehold.example.org:8443"
    if not isinstance(value, str):
        raise InvalidParameter(f"{name}: {value!r} is not a URL; {advice}")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise InvalidParameter(f"{name}: {value!r} is not a URL ({error}); {advice}") from None
    if parts.username is not None or parts.password is not None:
        # Not quoted: it holds a secret.
        raise InvalidParameter(f"{name}: has credentials in it; put the token into report-token-file")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == 0
        or parts.query
        or parts.fragment
        or not value.isascii()
        or not value.isprintable()
        or " " in value
    ):
        raise InvalidParameter(f"{name}: {value!r} is not a base URL of http or https; {advice}")
    return value.rstrip("/")


_PARSERS: Mapping[str, Callable[[str, Any], Any]] = {
    "host-id": _host_id,
    "state-directory": _path,
    "unknown-clients": _unknown_clients,
    "event-queue": _integer(1, 2**24, "records"),
    "rejection-window": _integer(1, 3_600, "seconds"),
    "rejection-table": _integer(1, 2**20, "pairs"),
    "report-url": _url,
    "report-token-file": _path,
    "report-ca-file": _path,
    "spool-limit": _integer(2**16, 2**40, "octets"),
}
