"""All settings in one frozen object, read once from the environment. Units are in the names."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from leasehold.errors import FieldInvalid

_PREFIX = "LEASEHOLD_"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator can set: each field as the environment variable `LEASEHOLD_` and its name in capitals."""

    database_url: str = "sqlite:///leasehold.sqlite"
    """SQLAlchemy URL: `sqlite:///PATH`, or `postgresql+psycopg://…` where several instances run."""
    ipam_servers: int = 2
    """How many IPAM servers a network wants that does not say so itself."""
    cool_down_s: float = 300
    """Seconds that a released address rests before another vNIC can have it."""
    idempotency_key_s: float = 24 * 3600
    """Seconds that an answer is kept under its Idempotency-Key."""
    missing_grace_s: float = 600
    """Seconds that a vNIC must have been missing from the engine's full lists before one lets it go."""
    mac_pool_low_percent: int = 10
    """Per cent of a MAC pool's size at which its free MACs count as few."""
    mac_pool_low_count: int = 10
    """Free MACs that count as few whatever the pool's size."""
    subnet_low_percent: int = 10
    """Per cent of a subnet's size at which its free addresses count as few."""
    subnet_low_count: int = 3
    """Free addresses that count as few whatever the subnet's size."""
    start_budget_s: float = 10
    """Seconds that `start` waits for confirmations before it answers 503."""
    manage_interval_s: float = 2
    """Seconds between passes of the manager; changes wake it earlier."""
    sweep_interval_s: float = 2
    """Seconds between passes that move released addresses on."""
    control_timeout_s: float = 5
    """Seconds that one command to a host's Kea may take."""
    control_connect_timeout_s: float = 2
    """Seconds to a connection with a host's control channel."""
    host_down_after_s: float = 6
    """Seconds without an answer after which a host counts as down."""
    duty_timeout_s: float = 5
    """Seconds after which other workers take over from one that stands still; from one that ended they do at once."""
    host_hold_down_s: float = 30
    """Seconds that a host must be up again before it is chosen anew to serve; doubled with each fall, see
    `host_calm_s`."""
    host_hold_down_most_s: float = 1800
    """Seconds that a host that keeps falling is held back at most."""
    host_calm_s: float = 3600
    """Seconds up after which a host's earlier falls are forgotten."""
    reservation_log_least: int = 1000
    """Last changes of each subnet that its log keeps in any case."""
    reservation_log_most: int = 100_000
    """Changes of a subnet that its log keeps for servers that do not answer; they get everything anew beyond that."""
    push_batch: int = 5000
    """Reservations in one `leasehold-apply`."""
    event_history_s: float = 30 * 24 * 3600
    """Seconds that events are kept; those that a webhook still is to be told of, up to `webhook_give_up_s`."""
    webhook_timeout_s: float = 10
    """Seconds that one webhook attempt may take."""
    webhook_give_up_s: float = 3 * 24 * 3600
    """Seconds over which attempts are repeated before a delivery is a dead letter."""
    webhook_allowed_networks: str = ""
    """CIDRs, separated by commas, that webhooks may go to although they are loopback, link-local or our own."""
    log_level: str = "INFO"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Settings from `LEASEHOLD_…` variables; raises FieldInvalid for an unknown one or a value of another kind."""
        kinds = {field.name: field.type for field in fields(cls)}
        values: dict[str, object] = {}
        for variable, text in environment.items():
            if not variable.startswith(_PREFIX):
                continue
            name = variable.removeprefix(_PREFIX).lower()
            if name not in kinds:
                known = ", ".join(_PREFIX + kind.upper() for kind in kinds)
                raise FieldInvalid(f"{variable} is no setting. The settings are {known}.", field=variable, value=text)
            values[name] = _parse(variable, text, kinds[name])
        return cls(**values)  # type: ignore[arg-type]


def _parse(variable: str, text: str, kind: object) -> object:
    if kind is str:
        return text
    number = float if kind is float else int
    try:
        value = number(text)
    except ValueError:
        value = number(-1)
    if not 0 <= value < float("inf"):
        raise FieldInvalid(
            f"{variable} is {text!r}, which is not a number from 0 up. Set it to one, or leave it out.",
            field=variable,
            value=text,
        )
    return value
