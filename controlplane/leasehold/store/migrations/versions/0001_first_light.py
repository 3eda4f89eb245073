"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "duties",
        sa.Column("name", sa.String(), nullable=False, comment="what one process does for all"),
        sa.Column("term", sa.BigInteger(), nullable=False, comment="rises by one with each process that takes it over"),
        sa.Column("holder", sa.String(), nullable=False, comment="who took it over last: host name and process id"),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_duties")),
    )
    op.create_table(
        "event_heads",
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("boot", sa.String(), nullable=False),
        sa.Column("boot_order", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False, comment="the last stored of this boot"),
        sa.PrimaryKeyConstraint("host_id", "boot", name=op.f("pk_event_heads")),
    )
    op.create_table(
        "events",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
            comment="order of arrival",
        ),
        sa.Column("id", sa.String(), nullable=False, comment="the CloudEvent's; the same fact always gets the same"),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False, comment="rises by one with each event of the subject"),
        sa.Column("time_ms", sa.BigInteger(), nullable=False, comment="when it happened"),
        sa.Column("stored_ms", sa.BigInteger(), nullable=False, comment="when it was heard of here"),
        sa.Column("mac", sa.BigInteger(), nullable=True, comment="that it tells of"),
        sa.Column("vnic_id", sa.String(), nullable=True, comment="that it tells of"),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_events")),
        sa.UniqueConstraint("id", name=op.f("uq_events_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_events_rejected",
        "events",
        ["mac"],
        unique=False,
        sqlite_where=sa.text("type = 'client.rejected'"),
        postgresql_where=sa.text("type = 'client.rejected'"),
    )
    op.create_table(
        "event_gaps",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("boot", sa.String(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("announced", sa.Boolean(), nullable=False, comment="the hook said so; else we missed them"),
        sa.Column("told_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_gaps")),
    )
    op.create_index("ix_event_gaps_boot", "event_gaps", ["host_id", "boot"], unique=False)
    op.create_table(
        "event_subjects",
        sa.Column("subject", sa.String(), nullable=False, comment="but for addresses, whose rows in leases count"),
        sa.Column("sequence", sa.BigInteger(), nullable=False, comment="of its last event"),
        sa.Column("last_ms", sa.BigInteger(), nullable=False, comment="when that was stored"),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_event_subjects")),
    )
    op.create_table(
        "mac_conflicts",
        sa.Column(
            "mac",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="two vNICs hold a lease with it at once",
        ),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("mac", name=op.f("pk_mac_conflicts")),
    )
    op.create_table(
        "hosts",
        sa.Column("id", sa.String(), nullable=False, comment="the engine's own"),
        sa.Column("control_url", sa.String(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("password", sa.String(), nullable=False),
        sa.Column("answered_ms", sa.BigInteger(), nullable=True, comment="when its control channel last answered"),
        sa.Column("unreachable_reason", sa.String(), nullable=True, comment="null while it answers"),
        sa.Column(
            "failed_ms", sa.BigInteger(), nullable=True, comment="when its control channel was last asked in vain"
        ),
        sa.Column("boot_id", sa.String(), nullable=True),
        sa.Column(
            "health",
            sa.String(),
            nullable=True,
            comment="what the manager made of its answers; null: it was never asked",
        ),
        sa.Column(
            "falls", sa.Integer(), nullable=False, comment="how often it went down without a calm time in between"
        ),
        sa.Column(
            "returned_ms", sa.BigInteger(), nullable=True, comment="when it last came back from being down or fenced"
        ),
        sa.Column("maintenance", sa.Boolean(), nullable=False, comment="it is to serve nothing until it is activated"),
        sa.Column(
            "fenced_ms",
            sa.BigInteger(),
            nullable=True,
            comment="when it was declared dead; null once it is known to serve nothing",
        ),
        sa.Column(
            "strays",
            sa.String(),
            nullable=True,
            comment="ids of the subnets that it serves and that are not known here; null: none",
        ),
        sa.CheckConstraint("health IN ('up', 'doubtful', 'down')", name=op.f("ck_hosts_health")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
    )
    op.create_table(
        "lineage",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.String(), nullable=False, comment="identity of this database's history"),
        sa.CheckConstraint("id = 1", name=op.f("ck_lineage_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lineage")),
    )
    op.create_table(
        "macs",
        sa.Column("mac", sa.BigInteger(), autoincrement=False, nullable=False, comment="held, or let go lately"),
        sa.Column("holders", sa.Integer(), nullable=False, comment="vNICs that have it"),
        sa.Column(
            "shared", sa.Boolean(), nullable=False, comment="several may: their pools allow it, or they are twins"
        ),
        sa.Column(
            "vnic_id",
            sa.String(),
            nullable=False,
            comment="the last that got it, which may have it back while it cools",
        ),
        sa.Column(
            "free_at_ms",
            sa.BigInteger(),
            nullable=True,
            comment="when a MAC that nobody has is free; null while it is held",
        ),
        sa.CheckConstraint("holders >= 0 AND (shared OR holders <= 1)", name=op.f("ck_macs_holders")),
        sa.PrimaryKeyConstraint("mac", name=op.f("pk_macs")),
    )
    op.create_index(op.f("ix_macs_free_at_ms"), "macs", ["free_at_ms"], unique=False)
    op.create_index(
        "ix_macs_shared",
        "macs",
        ["mac"],
        unique=False,
        sqlite_where=sa.text("holders > 1"),
        postgresql_where=sa.text("holders > 1"),
    )
    op.create_index("ix_macs_vnic_id", "macs", ["vnic_id"], unique=False)
    op.create_table(
        "networks",
        sa.Column("id", sa.String(), nullable=False, comment="the engine's own"),
        sa.Column("ipam_enabled", sa.Boolean(), nullable=False),
        sa.Column("ipam_servers", sa.Integer(), nullable=True, comment="null: as many as the settings say"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_networks")),
    )
    op.create_table(
        "spaces",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="one per MAC pool and per subnet",
        ),
        sa.Column(
            "cursor", sa.BigInteger(), nullable=False, comment="where the next search begins, so that reuse comes last"
        ),
        sa.Column("free", sa.BigInteger(), nullable=False, comment="sum of the extents' sizes"),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="how many numbers the space hands out in all"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spaces")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column(
            "host_id", sa.String(), nullable=True, comment="the one host that a token of role host may speak for"
        ),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the secret"),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("types", sa.JSON(), nullable=False, comment="event types, also like lease.*; empty: all"),
        sa.Column(
            "subjects", sa.JSON(), nullable=False, comment="subjects, in which * stands for anything; empty: all"
        ),
        sa.Column("networks", sa.JSON(), nullable=False, comment="ids; empty: all"),
        sa.Column("subnets", sa.JSON(), nullable=False, comment="ids; empty: all"),
        sa.Column(
            "batch_events",
            sa.Integer(),
            nullable=True,
            comment="most events in a request; null: one a request, not as a batch",
        ),
        sa.Column(
            "batch_octets",
            sa.Integer(),
            nullable=True,
            comment="most octets in a request of more than one event",
        ),
        sa.Column("concurrency", sa.Integer(), nullable=False, comment="requests under way at once"),
        sa.Column("secret", sa.String(), nullable=False, comment="whsec_ and base64"),
        sa.Column(
            "old_secret", sa.String(), nullable=True, comment="the one before it, which signs as well for a while"
        ),
        sa.Column("old_secret_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_reason", sa.String(), nullable=True, comment="why it is disabled"),
        sa.Column(
            "revision",
            sa.BigInteger(),
            nullable=False,
            comment="of the last change that whoever delivers must know of",
        ),
        sa.Column(
            "first_position",
            sa.BigInteger(),
            nullable=False,
            comment="events up to here were delivered only if a row in deliveries says so",
        ),
        sa.Column(
            "position",
            sa.BigInteger(),
            nullable=False,
            comment="events up to here were delivered, or have a row in deliveries, or are not wanted",
        ),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('active', 'paused', 'disabled')", name=op.f("ck_webhooks_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False, comment="how many the request had, of"),
        sa.Column("first_position", sa.BigInteger(), nullable=False),
        sa.Column("last_position", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True, comment="HTTP status; null: no answer"),
        sa.Column("error", sa.String(), nullable=True, comment="null: delivered"),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_attempts_webhook_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
    )
    op.create_index("ix_attempts_webhook_id_id", "attempts", ["webhook_id", "id"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("event_position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.Column("first_due_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=True, comment="when the last attempt began"),
        sa.Column(
            "last_status", sa.Integer(), nullable=True, comment="HTTP status of the last attempt; null: no answer"
        ),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("last_duration_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["event_position"], ["events.position"], name=op.f("fk_deliveries_event_position")),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_deliveries_webhook_id"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("state IN ('waiting', 'delivered', 'dead')", name=op.f("ck_deliveries_state")),
        sa.PrimaryKeyConstraint("webhook_id", "event_position", name=op.f("pk_deliveries")),
    )
    op.create_index("ix_deliveries_event_position", "deliveries", ["event_position"], unique=False)
    op.create_index(
        "ix_deliveries_waiting",
        "deliveries",
        ["webhook_id", "event_position"],
        unique=False,
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "free_extents",
        sa.Column("space_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("first <= last", name=op.f("ck_free_extents_order")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_free_extents_space_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("space_id", "last", name=op.f("pk_free_extents")),
    )
    op.create_table(
        "host_networks",
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("network_id", sa.String(), nullable=False),
        sa.Column("interface", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False, comment="the host's own, never given to a vNIC"),
        sa.Column(
            "link_fault",
            sa.String(),
            nullable=True,
            comment="why it is down there, not hearing guests; null while it is not",
        ),
        sa.Column(
            "falls", sa.Integer(), nullable=False, comment="how often it went down there without a calm time in between"
        ),
        sa.Column("returned_ms", sa.BigInteger(), nullable=True, comment="when it last came back from that"),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_host_networks_host_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("host_id", "network_id", name=op.f("pk_host_networks")),
        sa.UniqueConstraint("network_id", "address", name=op.f("uq_host_networks_network_id_address")),
    )
    op.create_table(
        "mac_pools",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("allow_duplicates", sa.Boolean(), nullable=False),
        sa.Column("default_pool", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False, comment="of the last change to what a caller can set"),
        sa.Column("space_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_mac_pools_space_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mac_pools")),
        sa.UniqueConstraint("name", name=op.f("uq_mac_pools_name")),
    )
    op.create_index(
        "uq_mac_pools_default_pool",
        "mac_pools",
        ["default_pool"],
        unique=True,
        sqlite_where=sa.text("default_pool"),
        postgresql_where=sa.text("default_pool"),
    )
    op.create_table(
        "servers",
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("network_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.String(), nullable=True, comment="why it is not as it should be, for a person"),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_servers_host_id")),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name=op.f("fk_servers_network_id")),
        sa.CheckConstraint(
            "state IN ('starting', 'running', 'unreachable', 'stopping')", name=op.f("ck_servers_state")
        ),
        sa.PrimaryKeyConstraint("host_id", "network_id", name=op.f("pk_servers")),
    )
    op.create_index(op.f("ix_servers_network_id"), "servers", ["network_id"], unique=False)
    op.create_table(
        "subnets",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False, comment="Kea's subnet id as well"),
        sa.Column("network_id", sa.String(), nullable=False),
        sa.Column("cidr", sa.String(), nullable=False),
        sa.Column("gateway", sa.String(), nullable=True),
        sa.Column("dns", sa.JSON(), nullable=False),
        sa.Column("ntp", sa.JSON(), nullable=False),
        sa.Column("domain", sa.String(), nullable=True),
        sa.Column("mtu", sa.Integer(), nullable=True, comment="octets"),
        sa.Column("routes", sa.JSON(), nullable=False, comment="[[destination, gateway], ...]"),
        sa.Column("options", sa.JSON(), nullable=False, comment="[{code, type, value}, ...]"),
        sa.Column("lease_time_s", sa.Integer(), nullable=False),
        sa.Column("ranges", sa.JSON(), nullable=False),
        sa.Column("exclusions", sa.JSON(), nullable=False),
        sa.Column("space_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False, comment="of the last change to its reservations"),
        sa.Column("digest", sa.String(), nullable=False, comment="of its reservations at that revision"),
        sa.Column("settings_revision", sa.BigInteger(), nullable=False, comment="of the last change to its settings"),
        sa.Column(
            "successor_id",
            sa.Integer(),
            nullable=True,
            comment="of a renumbered subnet, which hands nothing out any more",
        ),
        sa.Column(
            "recovering_since_ms",
            sa.BigInteger(),
            nullable=True,
            comment="servers may know of promises that a restored database lost",
        ),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name=op.f("fk_subnets_network_id")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_subnets_space_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subnets")),
        sa.UniqueConstraint("network_id", "cidr", name=op.f("uq_subnets_network_id_cidr")),
        sqlite_autoincrement=True,
    )
    # Kea's ids of our subnets begin out of the way of an administrator's own.
    if op.get_bind().dialect.name == "sqlite":
        op.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('subnets', 999999999)")
    else:
        op.execute("ALTER SEQUENCE subnets_id_seq RESTART WITH 1000000000")
    op.create_table(
        "addresses",
        sa.Column("subnet_id", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("mac", sa.BigInteger(), nullable=False, comment="last promised to"),
        sa.Column(
            "vnic_id",
            sa.String(),
            nullable=True,
            comment="of the promise; a vNIC that is gone leaves its id until the address is free",
        ),
        sa.Column(
            "revision", sa.BigInteger(), nullable=False, comment="of the last change: the promise, or its withdrawal"
        ),
        sa.Column("free_at_ms", sa.BigInteger(), nullable=True, comment="when a cooling address is free"),
        sa.Column(
            "guest_lease_ms",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="how long its last guest may use it on after the last server has let it go; 0 for one that is off",
        ),
        sa.ForeignKeyConstraint(["subnet_id"], ["subnets.id"], name=op.f("fk_addresses_subnet_id")),
        sa.CheckConstraint("state IN ('held', 'draining', 'cooling')", name=op.f("ck_addresses_state")),
        sa.PrimaryKeyConstraint("subnet_id", "offset", name=op.f("pk_addresses")),
    )
    op.create_index(
        "ix_addresses_unsettled",
        "addresses",
        ["state", "free_at_ms"],
        unique=False,
        sqlite_where=sa.text("state != 'held'"),
        postgresql_where=sa.text("state != 'held'"),
    )
    op.create_index("ix_addresses_vnic_id", "addresses", ["vnic_id"], unique=False)
    op.create_index(
        "uq_addresses_held_mac",
        "addresses",
        ["subnet_id", "mac"],
        unique=True,
        sqlite_where=sa.text("state = 'held'"),
        postgresql_where=sa.text("state = 'held'"),
    )
    op.create_table(
        "mac_ranges",
        sa.Column("mac_pool_id", sa.String(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("first <= last", name=op.f("ck_mac_ranges_order")),
        sa.ForeignKeyConstraint(
            ["mac_pool_id"], ["mac_pools.id"], name=op.f("fk_mac_ranges_mac_pool_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("mac_pool_id", "last", name=op.f("pk_mac_ranges")),
    )
    op.create_table(
        "reservation_log",
        sa.Column("subnet_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("mac", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=True, comment="null: the reservation of this MAC was withdrawn"),
        sa.Column("digest", sa.String(), nullable=False, comment="of the subnet's reservations at this revision"),
        sa.ForeignKeyConstraint(["subnet_id"], ["subnets.id"], name=op.f("fk_reservation_log_subnet_id")),
        sa.PrimaryKeyConstraint("subnet_id", "revision", name=op.f("pk_reservation_log")),
    )
    op.create_table(
        "scopes",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False, comment="the engine's own"),
        sa.Column(
            "parent_id", sa.String(), nullable=True, comment="the data center of a cluster, the cluster of a VM pool"
        ),
        sa.Column("mac_pool_id", sa.String(), nullable=True, comment="null: the parent's, or the default"),
        sa.ForeignKeyConstraint(["mac_pool_id"], ["mac_pools.id"], name=op.f("fk_scopes_mac_pool_id")),
        sa.CheckConstraint("kind IN ('data_center', 'cluster', 'vm_pool')", name=op.f("ck_scopes_kind")),
        sa.PrimaryKeyConstraint("kind", "id", name=op.f("pk_scopes")),
    )
    op.create_index(op.f("ix_scopes_mac_pool_id"), "scopes", ["mac_pool_id"], unique=False)
    op.create_table(
        "server_subnets",
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("subnet_id", sa.Integer(), nullable=False),
        sa.Column(
            "confirmed_revision",
            sa.BigInteger(),
            nullable=True,
            comment="null: never confirmed in this epoch; it wants a full resync",
        ),
        sa.Column("confirmed_ms", sa.BigInteger(), nullable=True),
        sa.Column(
            "provided_revision",
            sa.BigInteger(),
            nullable=True,
            comment="of the settings that its Kea took; null: it has not the subnet",
        ),
        sa.Column(
            "provided_cidr",
            sa.String(),
            nullable=True,
            comment="in these settings, less what was taken from it since",
        ),
        sa.ForeignKeyConstraint(["subnet_id"], ["subnets.id"], name=op.f("fk_server_subnets_subnet_id")),
        sa.PrimaryKeyConstraint("host_id", "subnet_id", name=op.f("pk_server_subnets")),
    )
    op.create_index(op.f("ix_server_subnets_subnet_id"), "server_subnets", ["subnet_id"], unique=False)
    op.create_table(
        "subnet_mac_ranges",
        sa.Column("subnet_id", sa.Integer(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("first <= last", name=op.f("ck_subnet_mac_ranges_order")),
        sa.ForeignKeyConstraint(
            ["subnet_id"], ["subnets.id"], name=op.f("fk_subnet_mac_ranges_subnet_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("subnet_id", "last", name=op.f("pk_subnet_mac_ranges")),
    )
    op.create_table(
        "vnics",
        sa.Column("id", sa.String(), nullable=False, comment="the engine's own"),
        sa.Column("vm", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("cluster_id", sa.String(), nullable=True),
        sa.Column("vm_pool_id", sa.String(), nullable=True),
        sa.Column("network_id", sa.String(), nullable=True),
        sa.Column("subnet_id", sa.Integer(), nullable=True),
        sa.Column("mac", sa.BigInteger(), nullable=False),
        sa.Column("mac_pool_id", sa.String(), nullable=False, comment="whose rules its MAC is under"),
        sa.Column("running", sa.Boolean(), nullable=False, comment="between start and stop"),
        sa.Column("revision", sa.BigInteger(), nullable=False, comment="of the last change to what a caller can set"),
        sa.Column(
            "missing_ms",
            sa.BigInteger(),
            nullable=True,
            comment="since when the engine's full list has been without it; null: it has it",
        ),
        sa.ForeignKeyConstraint(["mac"], ["macs.mac"], name=op.f("fk_vnics_mac")),
        sa.ForeignKeyConstraint(["mac_pool_id"], ["mac_pools.id"], name=op.f("fk_vnics_mac_pool_id")),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name=op.f("fk_vnics_network_id")),
        sa.ForeignKeyConstraint(["subnet_id"], ["subnets.id"], name=op.f("fk_vnics_subnet_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vnics")),
    )
    op.create_index(op.f("ix_vnics_cluster_id"), "vnics", ["cluster_id"], unique=False)
    op.create_index(op.f("ix_vnics_mac"), "vnics", ["mac"], unique=False)
    op.create_index(op.f("ix_vnics_mac_pool_id"), "vnics", ["mac_pool_id"], unique=False)
    op.create_index(op.f("ix_vnics_network_id"), "vnics", ["network_id"], unique=False)
    op.create_index(op.f("ix_vnics_subnet_id"), "vnics", ["subnet_id"], unique=False)
    op.create_index(op.f("ix_vnics_vm_pool_id"), "vnics", ["vm_pool_id"], unique=False)
    op.create_table(
        "twins",
        sa.Column("vnic_id", sa.String(), nullable=False),
        sa.Column("twin_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["twin_id"], ["vnics.id"], name=op.f("fk_twins_twin_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["vnic_id"], ["vnics.id"], name=op.f("fk_twins_vnic_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("vnic_id", "twin_id", name=op.f("pk_twins")),
    )
    op.create_index(op.f("ix_twins_twin_id"), "twins", ["twin_id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("subnet_id", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.String(), nullable=False, comment="whose server told of it"),
        sa.Column("mac", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False, comment="when this state began"),
        sa.Column("told_ms", sa.BigInteger(), nullable=False, comment="of the last event, by the host's clock"),
        sa.Column("expires_ms", sa.BigInteger(), nullable=True, comment="when it ends by itself; null: never"),
        sa.Column(
            "sequence",
            sa.BigInteger(),
            nullable=False,
            comment="of the last event of its subject that came from this host",
        ),
        sa.Column("diverged", sa.Boolean(), nullable=False, comment="it is not what is reserved, and that was told"),
        sa.CheckConstraint("state IN ('assigned', 'released', 'expired', 'declined')", name=op.f("ck_leases_state")),
        sa.PrimaryKeyConstraint("subnet_id", "offset", "host_id", name=op.f("pk_leases")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_leases_diverged",
        "leases",
        ["host_id"],
        unique=False,
        sqlite_where=sa.text("diverged"),
        postgresql_where=sa.text("diverged"),
    )
    op.create_index("ix_leases_mac", "leases", ["mac"], unique=False)
    op.create_table(
        "read_backs",
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False, comment="what was missed"),
        sa.Column(
            "wanted_ms",
            sa.BigInteger(),
            nullable=False,
            comment="of the last wish: one that came meanwhile is not lost",
        ),
        sa.Column("detail", sa.String(), nullable=True, comment="why it did not come about yet, for a person"),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_read_backs_host_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("host_id", name=op.f("pk_read_backs")),
    )
    op.create_table(
        "kept_answers",
        sa.Column("token_id", sa.String(), nullable=False, comment="whose Idempotency-Key it is"),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the request"),
        sa.Column(
            "status", sa.Integer(), nullable=False, comment="of the answer; 0 in the transaction that works on it"
        ),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_id", "key", name=op.f("pk_kept_answers")),
    )
    op.create_index(op.f("ix_kept_answers_expires_ms"), "kept_answers", ["expires_ms"], unique=False)
