"""The `leasehold` command on a database of the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leasehold.cli import main
from leasehold.config import Settings
from leasehold.service.context import Context, open_context

Run = Callable[..., Result]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/leasehold.sqlite"


@pytest.fixture
def run(url: str) -> Run:
    """Runs `leasehold` on a database of the test's own."""

    def call(*arguments: str, stdin: str = "", **settings: str) -> Result:
        environment = {"LEASEHOLD_DATABASE_URL": url, "COLUMNS": "200"} | settings
        return CliRunner().invoke(main, arguments, input=stdin, env=environment)

    return call


@pytest.fixture
def ctx(url: str) -> Context:
    return open_context(Settings(database_url=url))
