"""The `leasehold` command."""

from leasehold.cli.commands import main

__all__ = ["main"]
