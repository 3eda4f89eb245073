"""The `leasehold` command: what it prints, and how it ends."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

from cli.conftest import Run
from leasehold import errors
from leasehold.cli import main
from leasehold.config import Settings
from leasehold.service import tokens
from leasehold.service.context import Context

README = Path(__file__).parents[2] / "controlplane" / "README.md"


def test_a_new_tokens_secret_is_all_of_stdout(run: Run, ctx: Context) -> None:
    done = run("token", "create", "--role", "engine")
    assert done.exit_code == 0
    assert tokens.authenticate(ctx, done.stdout.strip()).role == "engine"


def test_a_new_token_as_json(run: Run, ctx: Context) -> None:
    created = json.loads(run("token", "create", "--role", "host", "--host", "host-a", "--json").stdout)
    token = tokens.authenticate(ctx, created["secret"])
    assert (created["id"], created["role"], created["host"]) == (token.id, "host", "host-a")


def test_the_list_of_tokens_has_no_secret(run: Run) -> None:
    secret = run("token", "create", "--role", "read", "--description", "for the dashboard").stdout.strip()
    shown = run("token", "list")
    assert "for the dashboard" in shown.stdout
    listed = run("token", "list", "--json")
    assert [each["description"] for each in json.loads(listed.stdout)] == ["for the dashboard"]
    assert secret not in shown.stdout + listed.stdout


def test_a_deleted_token_is_unknown(run: Run, ctx: Context) -> None:
    created = json.loads(run("token", "create", "--role", "read", "--json").stdout)
    assert run("token", "delete", created["id"]).exit_code == 0
    with pytest.raises(errors.Unauthenticated):
        tokens.authenticate(ctx, created["secret"])


def test_upgrade_makes_a_database_where_there_is_none(run: Run, tmp_path: Path) -> None:
    assert run("db", "upgrade").exit_code == 0
    assert (tmp_path / "leasehold.sqlite").exists()


def test_upgrade_of_an_upgraded_database_changes_nothing(run: Run, ctx: Context) -> None:
    token, _ = tokens.create(ctx, "read")
    assert run("db", "upgrade").exit_code == 0
    assert tokens.list_tokens(ctx) == [token]


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below, by its words."""
    for name, each in group.commands.items():
        yield (*path, name), each
        if isinstance(each, click.Group):
            yield from commands(each, *path, name)


def test_no_summary_of_a_command_is_cut_in_80_columns() -> None:
    groups = [main, *(each for _, each in commands(main) if isinstance(each, click.Group))]
    for each in groups:
        assert "..." not in each.get_help(click.Context(each, terminal_width=78)).partition("Commands:")[2], each.name


def test_the_readme_has_every_command_and_no_other() -> None:
    told: set[tuple[str, ...]] = set()
    for row in re.findall(r"^\| (`leasehold .*?) \| ", README.read_text(), re.MULTILINE):
        for span in re.findall(r"`leasehold (.*?)`", row):
            words = [word.split(r"\|") for word in span.split()]
            for name in words[0]:
                is_group = isinstance(main.commands.get(name), click.Group)
                told |= {(name, each) for each in words[1]} if is_group else {(name,)}
    assert told == {path for path, each in commands(main) if not isinstance(each, click.Group)}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Invalid, 3),
        (errors.NotFound, 4),
        (errors.Conflict, 5),
        (errors.Unavailable, 6),
        (errors.Refused, 7),
        (errors.Forbidden, 1),
    ],
)
def test_a_command_ends_with_its_errors_code_and_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[errors.LeaseholdError], code: int
) -> None:
    def fail(_ctx: Context) -> Any:
        raise error("It went wrong.")

    monkeypatch.setattr(tokens, "list_tokens", fail)
    done = run("token", "list")
    assert (done.exit_code, done.stdout) == (code, "")
    assert "It went wrong." in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("token", "create"),
        ("token", "create", "--role", "root"),
        ("serve", "--bind", "8080"),
        ("serve", "--bind", ":8080"),
        ("serve", "--bind", "127.0.0.1:http"),
        ("serve", "--bind", "fd://x"),
    ],
)
def test_wrong_usage_ends_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("token", "create", "--role", "host"), "--host"), (("token", "create", "--role", "read", "--host", "a"), "host")],
)
def test_a_token_of_role_host_and_no_other_names_a_host(run: Run, arguments: tuple[str, ...], word: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 3
    assert word.strip("-") in done.stderr


def test_an_unknown_token_cannot_be_deleted(run: Run) -> None:
    assert run("token", "delete", "unheard-of").exit_code == 4


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"LEASEHOLD_COLOUR": "red"}, 3),
        ({"LEASEHOLD_COOL_DOWN_S": "soon"}, 3),
        ({"LEASEHOLD_DATABASE_URL": "nonsense"}, 3),
        ({"LEASEHOLD_DATABASE_URL": "oracle9://host/name"}, 3),
        ({"LEASEHOLD_DATABASE_URL": "sqlite:////nonexistent/leasehold.sqlite"}, 6),
    ],
)
def test_settings_that_do_not_fit_are_told(run: Run, settings: dict[str, str], code: int) -> None:
    done = run("token", "list", **settings)
    assert done.exit_code == code
    assert next(iter(settings)) in done.stderr or "/nonexistent/" in done.stderr


def test_a_log_level_that_is_none_is_told(run: Run) -> None:
    done = run("serve", "--bind", "127.0.0.1:0", LEASEHOLD_LOG_LEVEL="loud")
    assert done.exit_code == 3
    assert "LEASEHOLD_LOG_LEVEL" in done.stderr


def test_a_file_that_is_no_database_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "leasehold.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
    done = run("token", "list")
    assert done.exit_code == 6
    assert "leasehold.sqlite" in done.stderr


def test_a_database_of_a_later_release_is_told(run: Run, ctx: Context) -> None:
    with ctx.db.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    done = run("token", "list")
    assert done.exit_code == 6
    assert "9999" in done.stderr


def test_the_readme_has_every_setting_with_its_default_and_no_other() -> None:
    told = dict(re.findall(r"^\| `LEASEHOLD_([A-Z_]+)` \| (.*?) ?\|", README.read_text(), re.MULTILINE))
    defaults = {field.name.upper(): field.default for field in fields(Settings)}
    assert told.keys() == defaults.keys()
    for name, default in defaults.items():
        read = told[name].strip("`")
        assert (read if isinstance(default, str) else float(read)) == default, name
