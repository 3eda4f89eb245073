"""The tables. Constraint names are part of the contract: a violation becomes a domain error by its constraint's name.

MACs are 48-bit integers, addresses of a subnet offsets from its network address, instants milliseconds since the Unix
epoch, UTC: integers, so that SQLite and PostgreSQL keep and order them alike.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only for a column of exactly INTEGER.
_Serial = BigInteger().with_variant(Integer, "sqlite")

lineage = Table(
    "lineage",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="single"), primary_key=True),
    Column("epoch", String, nullable=False, comment="identity of this database's history"),
)

duties = Table(
    "duties",
    metadata,
    Column("name", String, primary_key=True, comment="what one process does for all"),
    Column("term", BigInteger, nullable=False, comment="rises by one with each process that takes it over"),
    Column("holder", String, nullable=False, comment="who took it over last: host name and process id"),
    Column("since_ms", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("role", String, nullable=False),
    Column("host_id", String, comment="the one host that a token of role host may speak for"),
    Column("description", String, nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256 of the secret"),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("digest"),
)

kept_answers = Table(
    "kept_answers",
    metadata,
    Column("token_id", String, nullable=False, comment="whose Idempotency-Key it is"),
    Column("key", String, nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256 of the request"),
    Column("status", Integer, nullable=False, comment="of the answer; 0 in the transaction that works on it"),
    Column("headers", JSON, nullable=False),
    Column("content", String, nullable=False),
    Column("expires_ms", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("token_id", "key"),
)

spaces = Table(
    "spaces",
    metadata,
    Column("id", _Serial, primary_key=True, comment="one per MAC pool and per subnet"),
    Column("cursor", BigInteger, nullable=False, comment="where the next search begins, so that reuse comes last"),
    Column("free", BigInteger, nullable=False, comment="sum of the extents' sizes"),
    Column("size", BigInteger, nullable=False, comment="how many numbers the space hands out in all"),
)

free_extents = Table(
    "free_extents",
    metadata,
    Column("space_id", ForeignKey("spaces.id", ondelete="CASCADE"), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    PrimaryKeyConstraint("space_id", "last"),
    CheckConstraint("first <= last", name="order"),
)

mac_pools = Table(
    "mac_pools",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("description", String, nullable=False),
    Column("allow_duplicates", Boolean, nullable=False),
    Column("default_pool", Boolean, nullable=False),
    Column("revision", BigInteger, nullable=False, comment="of the last change to what a caller can set"),
    Column("space_id", ForeignKey("spaces.id"), nullable=False),
    UniqueConstraint("name"),
)
Index(
    "uq_mac_pools_default_pool",
    mac_pools.c.default_pool,
    unique=True,
    sqlite_where=text("default_pool"),
    postgresql_where=text("default_pool"),
)

mac_ranges = Table(
    "mac_ranges",
    metadata,
    Column("mac_pool_id", ForeignKey("mac_pools.id", ondelete="CASCADE"), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    PrimaryKeyConstraint("mac_pool_id", "last"),
    CheckConstraint("first <= last", name="order"),
)

scopes = Table(
    "scopes",
    metadata,
    Column(
        "kind",
        String,
        CheckConstraint("kind IN ('data_center', 'cluster', 'vm_pool')", name="kind"),
        nullable=False,
    ),
    Column("id", String, nullable=False, comment="the engine's own"),
    Column("parent_id", String, comment="the data center of a cluster, the cluster of a VM pool"),
    Column("mac_pool_id", ForeignKey("mac_pools.id"), index=True, comment="null: the parent's, or the default"),
    PrimaryKeyConstraint("kind", "id"),
)

macs = Table(
    "macs",
    metadata,
    Column("mac", BigInteger, primary_key=True, autoincrement=False, comment="held, or let go lately"),
    Column("holders", Integer, nullable=False, comment="vNICs that have it"),
    Column("shared", Boolean, nullable=False, comment="several may: their pools allow it, or they are twins"),
    Column("vnic_id", String, nullable=False, comment="the last that got it, which may have it back while it cools"),
    Column("free_at_ms", BigInteger, index=True, comment="when a MAC that nobody has is free; null while it is held"),
    CheckConstraint("holders >= 0 AND (shared OR holders <= 1)", name="holders"),
)
Index("ix_macs_vnic_id", macs.c.vnic_id)
Index("ix_macs_shared", macs.c.mac, sqlite_where=text("holders > 1"), postgresql_where=text("holders > 1"))

networks = Table(
    "networks",
    metadata,
    Column("id", String, primary_key=True, comment="the engine's own"),
    Column("ipam_enabled", Boolean, nullable=False),
    Column("ipam_servers", Integer, comment="null: as many as the settings say"),
)

FIRST_SUBNET_ID = 1_000_000_000
"""Kea's ids of our subnets begin here, out of the way of an administrator's own. Source: Kea 2.2 ARM, "IPv4 Subnet
Identifier": 1 to 4294967294."""

subnets = Table(
    "subnets",
    metadata,
    Column("id", Integer, primary_key=True, comment="Kea's subnet id as well", autoincrement=True),
    Column("network_id", ForeignKey("networks.id"), nullable=False),
    Column("cidr", String, nullable=False),
    Column("gateway", String),
    Column("dns", JSON, nullable=False),
    Column("ntp", JSON, nullable=False),
    Column("domain", String),
    Column("mtu", Integer, comment="octets"),
    Column("routes", JSON, nullable=False, comment="[[destination, gateway], ...]"),
    Column("options", JSON, nullable=False, comment="[{code, type, value}, ...]"),
    Column("lease_time_s", Integer, nullable=False),
    Column("ranges", JSON, nullable=False),
    Column("exclusions", JSON, nullable=False),
    Column("space_id", ForeignKey("spaces.id"), nullable=False),
    Column("revision", BigInteger, nullable=False, comment="of the last change to its reservations"),
    Column("digest", String, nullable=False, comment="of its reservations at that revision"),
    Column("settings_revision", BigInteger, nullable=False, comment="of the last change to its settings"),
    Column("successor_id", Integer, comment="of a renumbered subnet, which hands nothing out any more"),
    Column("recovering_since_ms", BigInteger, comment="servers may know of promises that a restored database lost"),
    UniqueConstraint("network_id", "cidr"),
    sqlite_autoincrement=True,
)

subnet_mac_ranges = Table(
    "subnet_mac_ranges",
    metadata,
    Column("subnet_id", ForeignKey("subnets.id", ondelete="CASCADE"), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    PrimaryKeyConstraint("subnet_id", "last"),
    CheckConstraint("first <= last", name="order"),
)

vnics = Table(
    "vnics",
    metadata,
    Column("id", String, primary_key=True, comment="the engine's own"),
    Column("vm", String, nullable=False),
    Column("name", String, nullable=False),
    Column("cluster_id", String, index=True),
    Column("vm_pool_id", String, index=True),
    Column("network_id", ForeignKey("networks.id"), index=True),
    Column("subnet_id", ForeignKey("subnets.id"), index=True),
    Column("mac", ForeignKey("macs.mac"), nullable=False, index=True),
    Column(
        "mac_pool_id", ForeignKey("mac_pools.id"), nullable=False, index=True, comment="whose rules its MAC is under"
    ),
    Column("running", Boolean, nullable=False, comment="between start and stop"),
    Column("revision", BigInteger, nullable=False, comment="of the last change to what a caller can set"),
    Column("missing_ms", BigInteger, comment="since when the engine's full list has been without it; null: it has it"),
)

twins = Table(
    "twins",
    metadata,
    Column("vnic_id", ForeignKey("vnics.id", ondelete="CASCADE"), nullable=False),
    Column("twin_id", ForeignKey("vnics.id", ondelete="CASCADE"), nullable=False, index=True),
    PrimaryKeyConstraint("vnic_id", "twin_id"),
)

addresses = Table(
    "addresses",
    metadata,
    Column("subnet_id", ForeignKey("subnets.id"), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("state", String, CheckConstraint("state IN ('held', 'draining', 'cooling')", name="state"), nullable=False),
    Column("mac", BigInteger, nullable=False, comment="last promised to"),
    Column("vnic_id", String, comment="of the promise; a vNIC that is gone leaves its id until the address is free"),
    Column("revision", BigInteger, nullable=False, comment="of the last change: the promise, or its withdrawal"),
    Column("free_at_ms", BigInteger, comment="when a cooling address is free"),
    Column(
        "guest_lease_ms",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="how long its last guest may use it on after the last server has let it go; 0 for one that is off",
    ),
    PrimaryKeyConstraint("subnet_id", "offset"),
)
Index(
    "uq_addresses_held_mac",
    addresses.c.subnet_id,
    addresses.c.mac,
    unique=True,
    sqlite_where=addresses.c.state == "held",
    postgresql_where=addresses.c.state == "held",
)
Index("ix_addresses_vnic_id", addresses.c.vnic_id)
Index(
    "ix_addresses_unsettled",
    addresses.c.state,
    addresses.c.free_at_ms,
    sqlite_where=addresses.c.state != "held",
    postgresql_where=addresses.c.state != "held",
)

reservation_log = Table(
    "reservation_log",
    metadata,
    Column("subnet_id", ForeignKey("subnets.id"), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("mac", BigInteger, nullable=False),
    Column("offset", BigInteger, comment="null: the reservation of this MAC was withdrawn"),
    Column("digest", String, nullable=False, comment="of the subnet's reservations at this revision"),
    PrimaryKeyConstraint("subnet_id", "revision"),
)

hosts = Table(
    "hosts",
    metadata,
    Column("id", String, primary_key=True, comment="the engine's own"),
    Column("control_url", String, nullable=False),
    Column("username", String, nullable=False),
    Column("password", String, nullable=False),
    Column("answered_ms", BigInteger, comment="when its control channel last answered"),
    Column("unreachable_reason", String, comment="null while it answers"),
    Column("failed_ms", BigInteger, comment="when its control channel was last asked in vain"),
    Column("boot_id", String),
    Column(
        "health",
        String,
        CheckConstraint("health IN ('up', 'doubtful', 'down')", name="health"),
        comment="what the manager made of its answers; null: it was never asked",
    ),
    Column("falls", Integer, nullable=False, comment="how often it went down without a calm time in between"),
    Column("returned_ms", BigInteger, comment="when it last came back from being down or fenced"),
    Column("maintenance", Boolean, nullable=False, comment="it is to serve nothing until it is activated"),
    Column("fenced_ms", BigInteger, comment="when it was declared dead; null once it is known to serve nothing"),
    Column("strays", String, comment="ids of the subnets that it serves and that are not known here; null: none"),
)

host_networks = Table(
    "host_networks",
    metadata,
    Column("host_id", ForeignKey("hosts.id", ondelete="CASCADE"), nullable=False),
    Column("network_id", String, nullable=False),
    Column("interface", String, nullable=False),
    Column("address", String, nullable=False, comment="the host's own, never given to a vNIC"),
    Column("link_fault", String, comment="why it is down there, not hearing guests; null while it is not"),
    Column("falls", Integer, nullable=False, comment="how often it went down there without a calm time in between"),
    Column("returned_ms", BigInteger, comment="when it last came back from that"),
    PrimaryKeyConstraint("host_id", "network_id"),
    UniqueConstraint("network_id", "address"),
)

servers = Table(
    "servers",
    metadata,
    Column("host_id", ForeignKey("hosts.id"), nullable=False),
    Column("network_id", ForeignKey("networks.id"), nullable=False, index=True),
    Column(
        "state",
        String,
        CheckConstraint("state IN ('starting', 'running', 'unreachable', 'stopping')", name="state"),
        nullable=False,
    ),
    Column("since_ms", BigInteger, nullable=False),
    Column("detail", String, comment="why it is not as it should be, for a person"),
    PrimaryKeyConstraint("host_id", "network_id"),
)

server_subnets = Table(
    "server_subnets",
    metadata,
    Column("host_id", String, nullable=False),
    Column("subnet_id", ForeignKey("subnets.id"), nullable=False, index=True),
    Column("confirmed_revision", BigInteger, comment="null: never confirmed in this epoch; it wants a full resync"),
    Column("confirmed_ms", BigInteger),
    Column("provided_revision", BigInteger, comment="of the settings that its Kea took; null: it has not the subnet"),
    Column("provided_cidr", String, comment="in these settings, less what was taken from it since"),
    PrimaryKeyConstraint("host_id", "subnet_id"),
)

event_heads = Table(
    "event_heads",
    metadata,
    Column("host_id", String, nullable=False),
    Column("boot", String, nullable=False),
    Column("boot_order", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False, comment="the last stored of this boot"),
    PrimaryKeyConstraint("host_id", "boot"),
)

event_gaps = Table(
    "event_gaps",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("host_id", String, nullable=False),
    Column("boot", String, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("announced", Boolean, nullable=False, comment="the hook said so; else we missed them"),
    Column("told_ms", BigInteger, nullable=False),
)
Index("ix_event_gaps_boot", event_gaps.c.host_id, event_gaps.c.boot)

# No index but for what must be found: each costs every event a page of the write-ahead log.
events = Table(
    "events",
    metadata,
    Column("position", _Serial, primary_key=True, autoincrement=True, comment="order of arrival"),
    Column("id", String, nullable=False, comment="the CloudEvent's; the same fact always gets the same"),
    Column("type", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("sequence", BigInteger, nullable=False, comment="rises by one with each event of the subject"),
    Column("time_ms", BigInteger, nullable=False, comment="when it happened"),
    Column("stored_ms", BigInteger, nullable=False, comment="when it was heard of here"),
    Column("mac", BigInteger, comment="that it tells of"),
    Column("vnic_id", String, comment="that it tells of"),
    Column("data", JSON, nullable=False),
    UniqueConstraint("id"),
    sqlite_autoincrement=True,
)

Index(
    "ix_events_rejected",
    events.c.mac,
    sqlite_where=text("type = 'client.rejected'"),
    postgresql_where=text("type = 'client.rejected'"),
)

event_subjects = Table(
    "event_subjects",
    metadata,
    Column("subject", String, primary_key=True, comment="but for addresses, whose rows in leases count"),
    Column("sequence", BigInteger, nullable=False, comment="of its last event"),
    Column("last_ms", BigInteger, nullable=False, comment="when that was stored"),
)

leases = Table(
    "leases",
    metadata,
    # No foreign key: its check would wait for whoever changes the subnet, and holds up all events.
    Column("subnet_id", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("host_id", String, nullable=False, comment="whose server told of it"),
    Column("mac", BigInteger, nullable=False),
    Column(
        "state",
        String,
        CheckConstraint("state IN ('assigned', 'released', 'expired', 'declined')", name="state"),
        nullable=False,
    ),
    Column("since_ms", BigInteger, nullable=False, comment="when this state began"),
    Column("told_ms", BigInteger, nullable=False, comment="of the last event, by the host's clock"),
    Column("expires_ms", BigInteger, comment="when it ends by itself; null: never"),
    Column("sequence", BigInteger, nullable=False, comment="of the last event of its subject that came from this host"),
    Column("diverged", Boolean, nullable=False, comment="it is not what is reserved, and that was told"),
    PrimaryKeyConstraint("subnet_id", "offset", "host_id"),
    sqlite_with_rowid=False,
)
Index("ix_leases_mac", leases.c.mac)
Index(
    "ix_leases_diverged",
    leases.c.host_id,
    sqlite_where=text("diverged"),
    postgresql_where=text("diverged"),
)

mac_conflicts = Table(
    "mac_conflicts",
    metadata,
    Column("mac", BigInteger, primary_key=True, autoincrement=False, comment="two vNICs hold a lease with it at once"),
    Column("since_ms", BigInteger, nullable=False),
)

read_backs = Table(
    "read_backs",
    metadata,
    Column("host_id", ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
    Column("reason", String, nullable=False, comment="what was missed"),
    Column("wanted_ms", BigInteger, nullable=False, comment="of the last wish: one that came meanwhile is not lost"),
    Column("detail", String, comment="why it did not come about yet, for a person"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String, primary_key=True),
    Column("url", String, nullable=False),
    Column("description", String, nullable=False),
    Column("types", JSON, nullable=False, comment="event types, also like lease.*; empty: all"),
    Column("subjects", JSON, nullable=False, comment="subjects, in which * stands for anything; empty: all"),
    Column("networks", JSON, nullable=False, comment="ids; empty: all"),
    Column("subnets", JSON, nullable=False, comment="ids; empty: all"),
    Column("batch_events", Integer, comment="most events in a request; null: one a request, not as a batch"),
    Column("batch_octets", Integer, comment="most octets in a request of more than one event"),
    Column("concurrency", Integer, nullable=False, comment="requests under way at once"),
    Column("secret", String, nullable=False, comment="whsec_ and base64"),
    Column("old_secret", String, comment="the one before it, which signs as well for a while"),
    Column("old_secret_until_ms", BigInteger),
    Column("state", String, CheckConstraint("state IN ('active', 'paused', 'disabled')", name="state"), nullable=False),
    Column("state_reason", String, comment="why it is disabled"),
    Column("revision", BigInteger, nullable=False, comment="of the last change that whoever delivers must know of"),
    Column(
        "first_position",
        BigInteger,
        nullable=False,
        comment="events up to here were delivered only if a row in deliveries says so",
    ),
    Column(
        "position",
        BigInteger,
        nullable=False,
        comment="events up to here were delivered, or have a row in deliveries, or are not wanted",
    ),
    Column("created_ms", BigInteger, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("webhook_id", ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("event_position", ForeignKey("events.position"), nullable=False),
    Column(
        "state",
        String,
        CheckConstraint("state IN ('waiting', 'delivered', 'dead')", name="state"),
        nullable=False,
    ),
    Column("attempts", Integer, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("first_due_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, comment="when the last attempt began"),
    Column("last_status", Integer, comment="HTTP status of the last attempt; null: no answer"),
    Column("last_error", String),
    Column("last_duration_ms", BigInteger),
    PrimaryKeyConstraint("webhook_id", "event_position"),
)
Index(
    "ix_deliveries_waiting",
    deliveries.c.webhook_id,
    deliveries.c.event_position,
    sqlite_where=deliveries.c.state == "waiting",
    postgresql_where=deliveries.c.state == "waiting",
)

Index("ix_deliveries_event_position", deliveries.c.event_position)  # for the removal of events

attempts = Table(
    "attempts",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("webhook_id", ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("events", Integer, nullable=False, comment="how many the request had, of"),
    Column("first_position", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("status", Integer, comment="HTTP status; null: no answer"),
    Column("error", String, comment="null: delivered"),
)
Index("ix_attempts_webhook_id_id", attempts.c.webhook_id, attempts.c.id)
