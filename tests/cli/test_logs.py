"""Logs are lines of JSON."""

import json
import logging

import pytest

from leasehold.cli.logs import JsonFormatter, configuration
from leasehold.errors import FieldInvalid


def line(message: str, *arguments: object, **more: object) -> dict[str, object]:
    record = logging.LogRecord("leasehold.test", logging.INFO, "file", 1, message, arguments, None)
    vars(record).update(more)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    decoded: dict[str, object] = json.loads(text)
    return decoded


def test_a_message_with_line_ends_stays_one_line() -> None:
    assert line("a %s", "b\nc")["message"] == "a b\nc"


def test_facts_are_members_and_do_not_replace_the_lines_own() -> None:
    logged = line("a", facts={"host": "host-a", "message": "b"})
    assert (logged["host"], logged["message"]) == ("host-a", "a")


def test_a_fact_that_is_no_json_is_written_as_text() -> None:
    assert line("a", facts={"host": {1}})["host"] == "{1}"


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(FieldInvalid, match="loud"):
        configuration("loud")
