"""Logs as lines of JSON on stderr. Whoever logs with `extra={"facts": {...}}` gets the facts as members of the line."""

import json
import logging
import logging.config
from datetime import UTC, datetime
from typing import Any

from leasehold.errors import FieldInvalid

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class JsonFormatter(logging.Formatter):
    """One record, one line, one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; what is no JSON in its facts is written as text."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts = getattr(record, "facts", {})
        line |= {name: fact for name, fact in facts.items() if name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configuration(level: str) -> dict[str, Any]:
    """What `logging.config.dictConfig` takes. Raises FieldInvalid for a level that is none."""
    if level.upper() not in _LEVELS:
        raise FieldInvalid(
            f"LEASEHOLD_LOG_LEVEL is {level!r}, and has to be one of {', '.join(_LEVELS)}.",
            field="LEASEHOLD_LOG_LEVEL",
            value=level,
        )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {
            # gunicorn puts a handler of its own on this logger; here its lines are to look like all others.
            "gunicorn.error": {"level": level.upper(), "handlers": [], "propagate": True},
            # It has a line for every push and every probe.
            "httpx": {"level": "WARNING"},
        },
    }
