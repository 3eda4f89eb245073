"""Answers, as tables for people and as JSON for programs."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

Value = TypeVar("Value")
Columns = Mapping[str, Callable[[Value], object]]
"""What a table shows of each value: a heading, and how to read the cell."""

_UNBROKEN = 2**16
_GAP = 2
_NARROW = 12

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what it would do, and change nothing.")


def columns_of(columns: Columns[Value], *names: str) -> Columns[Value]:
    """Those of the columns that are named."""
    return {name: columns[name] for name in names}


def print_json(value: object) -> None:
    """A value of dictionaries, lists and scalars; instants in ISO 8601."""
    click.echo(json.dumps(value, default=lambda each: each.isoformat(), indent=2))


def print_as(kind: Any, value: object) -> None:
    """A value of the service layer as JSON, in the shape that the API answers it in: a model, or a list of one."""
    adapter = TypeAdapter(kind)
    fitted = adapter.validate_python(value, from_attributes=True)
    click.echo(adapter.dump_json(fitted, by_alias=True, indent=2).decode())


def print_table(columns: Columns[Value], values: Iterable[Value], title: str | None = None) -> None:
    """A line for each value; a title is apart from what was printed before.

    Sentences are broken to fit the terminal, and words never, also where that makes lines wider: part of a MAC is of no
    use. What goes to a file or another program is not broken at all."""
    if title is not None:
        click.echo()
    _print([list(columns), *([_cell(read(each)) for read in columns.values()] for each in values)], title, headed=True)


def print_fields(columns: Columns[Value], value: Value) -> None:
    """One value, a line for each of its fields."""
    _print([[name, _cell(read(value))] for name, read in columns.items()])


def note(sentence: str) -> None:
    """Says something to people, beside the answer."""
    click.echo(sentence, err=True)


def note_dry_run(dry_run: bool) -> None:
    """Says that nothing was changed, if so."""
    if dry_run:
        note("Dry run: nothing was changed.")


def _print(rows: list[list[str]], title: str | None = None, *, headed: bool = False) -> None:
    # With emoji, b2:ab:42 becomes b2🆎42.
    console = Console(highlight=False, markup=False, emoji=False)
    is_free = not console.is_terminal and "COLUMNS" not in os.environ
    widths = _widths(list(zip(*rows, strict=True)), _UNBROKEN if is_free else console.width)
    console.width = _UNBROKEN
    table = Table(
        title=title,
        title_justify="left",
        show_header=headed,
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
    )
    for index, width in enumerate(widths):
        table.add_column(rows[0][index] if headed else "", width=width, style="" if headed or index else "bold")
    for row in rows[headed:]:
        table.add_row(*row)
    console.print(table)


def _widths(columns: list[tuple[str, ...]], most: int) -> list[int]:
    """How wide each column is, so that together they are as wide as `most` if that is enough for every word. What is
    over goes to whoever needs it."""
    whole = [max(cell_len(line) for cell in column for line in [*cell.split("\n"), ""]) for column in columns]
    words = [max(cell_len(word) for cell in column for word in [*cell.split(), ""]) for column in columns]
    least = [min(line, max(word, _NARROW)) for line, word in zip(whole, words, strict=True)]
    over = most - sum(least) - _GAP * (len(columns) - 1)
    widths = list(least)
    waiting = sorted(range(len(columns)), key=lambda index: whole[index] - least[index])
    for left, index in zip(range(len(waiting), 0, -1), waiting, strict=True):
        more = max(0, min(whole[index] - least[index], over // left))
        widths[index] += more
        over -= more
    return widths


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, tuple):
        return "\n".join(map(_cell, value))
    return str(value)
