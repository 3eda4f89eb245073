"""How commands end."""

from collections.abc import Mapping
from typing import Any

import click

from leasehold.errors import Conflict, Invalid, LeaseholdError, NotFound, Refused, Unavailable

EXIT_CODES: Mapping[type[LeaseholdError], int] = {
    Invalid: 3,
    NotFound: 4,
    Conflict: 5,
    Unavailable: 6,
    Refused: 7,
    LeaseholdError: 1,
}
"""By branch; click itself ends with 2 for wrong usage."""


def exit_code(kind: type[LeaseholdError]) -> int:
    """How the command ends for an error class: its branch's number."""
    return next(EXIT_CODES[base] for base in kind.__mro__ if base in EXIT_CODES)


class Group(click.Group):
    """Ends with the error's sentence on stderr, and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except LeaseholdError as error:
            click.echo(f"Error ({type(error).code}): {error}", err=True)
            ctx.exit(exit_code(type(error)))
