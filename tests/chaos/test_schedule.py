"""A schedule follows from its seed."""

from collections import Counter

from chaos.schedule import Cast, schedule

CAST = Cast(
    hosts=("host-a", "host-b", "host-c"),
    networks=("blue", "red"),
    slots=("blue", "red") * 20,
    proxied=("host-a", "host-b"),
    processes=("serve",),
)


def test_the_same_seed_gives_the_same_steps_and_another_gives_others() -> None:
    assert schedule(7, 300, CAST) == schedule(7, 300, CAST)
    assert schedule(7, 300, CAST) != schedule(8, 300, CAST)
    assert schedule(7, 300, CAST) == schedule(7, 500, CAST)[:300]


def test_many_steps_have_every_kind_of_fault_and_no_fault_meets_itself() -> None:
    steps = schedule(1, 3000, CAST)
    counted = Counter(step.kind for step in steps)
    for kind in (
        *(
            "put",
            "start",
            "stop",
            "delete",
            "move",
            "guest",
            "stranger",
            "reserve",
            "unreserve",
            "kill_kea",
            "restart_kea",
            "lose_journal",
        ),
        *("kill_agent", "take_host_down", "cut_management", "cut_network", "disturb", "disturb_reports"),
        *(
            "kill_control",
            "stall_control",
            "kill_database",
            "disable_ipam",
            "want_servers",
            "maintain",
            "fence",
            "patch",
            "end_fault",
        ),
    ):
        assert counted[kind] > 0, kind
    present: set[tuple[str, str | None, str | None]] = set()
    for step in steps:
        if step.kind == "end_fault":
            present.remove((step.options["of"], step.host, step.network))
        elif step.kind in ("kill_kea", "take_host_down", "cut_management", "disturb"):
            assert (step.kind, step.host, step.network) not in present
        if any(other.ends == step.number for other in steps):
            present.add((step.kind, step.host, step.network))
