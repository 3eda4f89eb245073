"""`leasehold webhook` and `leasehold events`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.conftest import Run
from events.receiver import Receiver, unused_port
from lab import wait_until
from leasehold.domain.values import WebhookSpec
from leasehold.service import delivery_log, events, tokens, webhooks
from leasehold.service.context import Context
from leasehold.worker import Worker

URL = "https://monitoring.example/leasehold"
PATIENCE_S = 20


def create(run: Run, *more: str) -> dict[str, Any]:
    answer = run("webhook", "create", URL, *more, "--json")
    assert answer.exit_code == 0, answer.output
    made: dict[str, Any] = json.loads(answer.stdout)
    return made


def tell(ctx: Context, *kinds: str, subject: str = "subnets/7/addresses/192.0.2.1") -> None:
    with ctx.db.write() as connection:
        for kind in kinds:
            events.emit(connection, ctx.now_ms(), kind, subject, {"mac": "02:00:00:00:00:01", "vnic": None})


def test_a_webhook_is_made_shown_changed_and_deleted(run: Run, ctx: Context) -> None:
    made = create(run, "--type", "lease.*", "--subject", "subnets/7/*", "--network", "blue", "--batch", "100")
    assert made.pop("secret").startswith("whsec_")
    shown = json.loads(run("webhook", "show", made["id"], "--json").stdout)
    assert shown.pop("progress") == {"behind": 0, "behind_s": 0, "waiting": 0, "dead": 0}
    assert shown == made
    assert made["batch"] == {"events": 100, "octets": 2**20}
    assert json.loads(run("webhook", "list", "--json").stdout) == [made]
    change = ["--concurrency", "4", "--clear", "batch", "--clear", "types", "--json"]
    changed = run("webhook", "update", made["id"], *change)
    assert json.loads(changed.stdout) == {**made, "concurrency": 4, "batch": None, "types": []}
    assert run("webhook", "delete", made["id"]).exit_code == 0
    assert webhooks.list_webhooks(ctx) == []


def test_tables_are_for_people(run: Run, ctx: Context) -> None:
    made = create(run, "--description", "the pager")
    tell(ctx, "lease.assigned")
    assert "the pager" in run("webhook", "list").stdout
    shown = run("webhook", "show", made["id"]).stdout
    assert "1 events" in shown
    assert made["secret"] not in shown
    assert "secret" in run("webhook", "create", URL).stdout


def test_pausing_resuming_and_rotating(run: Run) -> None:
    made = create(run)
    assert json.loads(run("webhook", "pause", made["id"], "--json").stdout)["state"] == "paused"
    assert json.loads(run("webhook", "resume", made["id"], "--json").stdout)["state"] == "active"
    rotated = json.loads(run("webhook", "rotate", made["id"], "--overlap", "60", "--json").stdout)
    assert rotated["secret"] != made["secret"]
    assert rotated["old_secret_until"] is not None


@pytest.mark.parametrize(
    "arguments",
    [["pause"], ["rotate"], ["update", "--description", "x"], ["delete"], ["replay", "--after-position", "0"]],
)
def test_a_dry_run_changes_nothing(run: Run, ctx: Context, arguments: list[str]) -> None:
    made = webhooks.create(ctx, WebhookSpec(url=URL))
    word, *more = arguments
    answer = run("webhook", word, made.id, *more, "--dry-run")
    assert answer.exit_code == 0
    assert "nothing was changed" in answer.stderr
    assert webhooks.get(ctx, made.id) == made


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["create", "ftp://x/"], 3),
        (["create", URL, "--type", "lease.asigned"], 3),
        (["create", URL, "--batch", "0"], 3),
        (["create"], 2),
        (["show", "nobody"], 4),
        (["replay", "nobody", "--dead"], 4),
        (["replay", "nobody", "--since", "yesterday"], 3),
        (["test", "nobody"], 4),
        (["listen"], 2),
        (["listen", "--subscribe", "--secret-file", "/dev/null"], 2),
        (["listen", "--secret-file", "/dev/null", "--bind", "nowhere"], 1),
    ],
)
def test_what_is_wrong_ends_with_its_code(run: Run, arguments: list[str], code: int) -> None:
    assert run("webhook", *arguments).exit_code == code


def test_a_test_ends_with_whether_it_was_taken(run: Run, ctx: Context) -> None:
    allowed = {"LEASEHOLD_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    with Receiver() as receiver:
        made = webhooks.create(ctx, WebhookSpec(url=receiver.url))
        (receiver.secret,) = made.secrets
        answer = run("webhook", "test", made.id, "--json", **allowed)
        assert (answer.exit_code, json.loads(answer.stdout)["status"]) == (0, 204)
        refused = run("webhook", "test", made.id, "--json")
        assert refused.exit_code == 1
        assert "must not be sent to" in json.loads(refused.stdout)["error"]


def test_deliveries_attempts_and_replays(run: Run, ctx: Context) -> None:
    made = webhooks.create(ctx, WebhookSpec(url=f"http://127.0.0.1:{unused_port()}/"))
    tell(ctx, "lease.assigned")
    worker = Worker(ctx)
    worker.start()
    wait_until(lambda: delivery_log.list_attempts(ctx, made.id, limit=1), PATIENCE_S, "it was tried")
    worker.stop()
    (delivery,) = json.loads(run("webhook", "deliveries", made.id, "--state", "waiting", "--json").stdout)
    assert delivery["attempts"] >= 1
    assert "must not be sent to" in delivery["last_error"]
    assert json.loads(run("webhook", "deliveries", made.id, "--state", "dead", "--json").stdout) == []
    assert json.loads(run("webhook", "attempts", made.id, "--json").stdout)[-1]["first_position"] == 1
    assert "lease.assigned" in run("webhook", "deliveries", made.id).stdout
    assert "must not" in run("webhook", "attempts", made.id).stdout
    again = run("webhook", "replay", made.id, "--id", delivery["event"]["id"], "--json")
    assert json.loads(again.stdout) == {"events": 1, "more_after": None}


# ---- events


def test_events_are_listed_as_lines_of_json(run: Run, ctx: Context) -> None:
    tell(ctx, "lease.assigned", "lease.renewed", "lease.declined", "mac_pool.low")
    lines = run("events", "list", "--type", "lease.*", "--json").stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["lease.assigned", "lease.renewed", "lease.declined"]
    lines = run("events", "list", "--after", "1", "--limit", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["position"] for line in lines] == [2, 3]
    assert "lease.declined subnets/7/addresses/192.0.2.1 mac=02:00:00:00:00:01" in run("events", "list").stdout
    assert run("events", "list", "--type", "leas.*").exit_code == 3
    assert run("events", "list", "--since", "yesterday").exit_code == 3


def test_tail_begins_behind_a_position_and_follows(run: Run, ctx: Context) -> None:
    tell(ctx, "lease.assigned", "lease.renewed", "lease.declined")
    lines = run("events", "tail", "--after", "1", "--count", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["position"] for line in lines] == [2, 3]
    assert run("events", "tail", "--api", "http://127.0.0.1:1").exit_code == 2


@contextmanager
def running(url: str, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """`leasehold` as a process of its own."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("leasehold"), *arguments],
        env={"LEASEHOLD_DATABASE_URL": url, "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_listen_subscribes_prints_and_unsubscribes(url: str, ctx: Context) -> None:
    """What is not signed is refused, and not printed."""
    arguments = ["webhook", "listen", "--bind", "127.0.0.1:0", "--subscribe", "--batch", "10", "--count", "3", "--json"]
    with running(url, *arguments) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "sends to http://127.0.0.1:" in process.stderr.readline()
        (made,) = webhooks.list_webhooks(ctx)
        assert "Listening" in process.stderr.readline()
        assert httpx.post(made.url, json={}, trust_env=False).status_code == 401
        allowed = replace(ctx, settings=replace(ctx.settings, webhook_allowed_networks="127.0.0.0/8"))
        worker = Worker(allowed)
        worker.start()
        try:
            tell(ctx, "lease.assigned", "lease.renewed", "lease.released")
            ctx.bell.ring()
            lines = [json.loads(process.stdout.readline()) for _ in range(3)]
            assert process.wait(PATIENCE_S) == 0
        finally:
            worker.stop()
        assert [each["type"] for each in lines] == ["lease.assigned", "lease.renewed", "lease.released"]
        assert webhooks.list_webhooks(ctx) == []


def test_tail_follows_an_api(url: str, ctx: Context, tmp_path: Path) -> None:
    tell(ctx, "mac_pool.low", "lease.assigned")
    token = tmp_path / "token"
    token.write_text(tokens.create(ctx, "read")[1])
    port = unused_port()
    with running(url, "serve", "--bind", f"127.0.0.1:{port}"):
        arguments = ["--api", f"http://127.0.0.1:{port}/", "--token-file", str(token), "--type", "lease.*", "--json"]
        with running(url, "events", "tail", *arguments, "--after", "1", "--count", "2") as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["position"] == 2
            tell(ctx, "subnet.low", "lease.renewed")
            assert json.loads(process.stdout.readline())["position"] == 4
            assert process.wait(PATIENCE_S) == 0
        token.write_text("lh_wrong")
        with running(url, "events", "tail", *arguments) as process:
            assert process.wait(PATIENCE_S) == 1
            assert process.stderr is not None
            assert "401" in process.stderr.read()
