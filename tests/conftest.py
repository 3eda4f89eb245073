"""Laboratories for tests, and their logs in the report of a test that failed."""

import re
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from lab import Lab
from lab.postgres import Postgres, postgres
from lab.text import tail

_standing: list[Lab] = []

# An example may take as long as a busy machine needs: timings are not what tests are for.
settings.register_profile("patient", settings.get_profile(settings.get_current_profile_name()), deadline=None)
settings.load_profile("patient")


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A laboratory of the test's own."""
    yield from _lab_for(request)


@pytest.fixture(scope="module")
def module_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A laboratory that the tests of a module share."""
    yield from _lab_for(request)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server that all tests share; each makes a database of its own in it."""
    with postgres() as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the ends of all logs of the test's laboratories into the report of a failure, and keep their files."""
    report = yield
    if report.failed:
        for lab in _standing:
            lab.keep_files = True
            report.sections += [(f"{log} (its end)", tail(log)) for log in lab.logs()]
    return report


def _lab_for(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(re.sub(r"\W+", "-", request.node.name)[:24].strip("-").lower()) as lab:
        _standing.append(lab)
        yield lab
        _standing.remove(lab)
