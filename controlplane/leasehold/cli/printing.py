"""Answers, as tables for people and as JSON for programs."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

Value = TypeVar("Value")
Columns = Mapping[str, Callable[[Value], object]]
"""What a table shows of each value: a heading, and how to read the cell."""

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what it would do, and change nothing.")


def print_json(value: object) -> None:
    """A value of dictionaries, lists and scalars; instants in ISO 8601."""
    click.echo(json.dumps(value, default=lambda each: each.isoformat(), indent=2))


def print_as(kind: Any, value: object) -> None:
    """A value of the service layer as JSON, in the shape that the API answers it in: a model, or a list of one."""
    adapter = TypeAdapter(kind)
    fitted = adapter.validate_python(value, from_attributes=True)
    click.echo(adapter.dump_json(fitted, by_alias=True, indent=2).decode())


def print_table(columns: Columns[Value], values: Iterable[Value], title: str | None = None) -> None:
    """A line for each value."""
    table = Table(*columns, title=title, title_justify="left")
    for each in values:
        table.add_row(*(_cell(read(each)) for read in columns.values()))
    Console(highlight=False, markup=False).print(table)


def print_fields(columns: Columns[Value], value: Value) -> None:
    """One value, a line for each of its fields."""
    table = Table(show_header=False)
    for name, read in columns.items():
        table.add_row(name, _cell(read(value)))
    Console(highlight=False, markup=False).print(table)


def note(sentence: str) -> None:
    """Says something to people, beside the answer."""
    click.echo(sentence, err=True)


def note_dry_run(dry_run: bool) -> None:
    """Says that nothing was changed, if so."""
    if dry_run:
        note("Dry run: nothing was changed.")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
