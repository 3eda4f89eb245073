"""What can be seen of each request: an id, one line in the log, and metrics."""

import logging
import re
import time
import uuid
from typing import Any

from flask import Flask, Response, g, request
from prometheus_client import Counter, Histogram

from leasehold.domain.values import Token

ID_HEADER = "X-Request-Id"
_OTHERS_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)
_log = logging.getLogger(__name__)

_requests = Counter("leasehold_http_requests_total", "Requests answered.", ("method", "route", "status"))
_seconds = Histogram(
    "leasehold_http_request_duration_seconds",
    "Time from a request's arrival to its answer.",
    ("method", "route"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


class ObservedFlask(Flask):
    """Flask that gives every request an id, a log line and its part in the metrics."""

    def __init__(self, name: str) -> None:
        super().__init__(name, static_folder=None)
        self.before_request(_begin)
        self.after_request(_end)

    def log_exception(self, exc_info: Any) -> None:
        """Logs a fault of our own under the id that the caller was told."""
        _log.error(
            "%s %s failed",
            request.method,
            request.path,
            exc_info=exc_info,
            extra={"facts": {"request_id": g.request_id}},
        )


def _begin() -> None:
    g.started_s = time.perf_counter()
    # A caller's own id ties its log to ours; one that could forge lines or headers is not taken.
    brought = request.headers.get(ID_HEADER, "")
    g.request_id = brought if _OTHERS_ID.fullmatch(brought) else str(uuid.uuid4())


def _end(response: Response) -> Response:
    taken_s = time.perf_counter() - g.started_s
    route = "none" if request.url_rule is None else request.url_rule.rule
    caller: Token | None = g.get("caller")
    response.headers[ID_HEADER] = g.request_id
    _requests.labels(request.method, route, response.status_code).inc()
    _seconds.labels(request.method, route).observe(taken_s)
    _log.log(
        logging.INFO if route.startswith("/v1/") else logging.DEBUG,
        "%s %s answered %d",
        request.method,
        request.path,
        response.status_code,
        extra={
            "facts": {
                "method": request.method,
                "path": request.path,
                "route": route,
                "status": response.status_code,
                "duration_ms": round(taken_s * 1000, 3),
                "request_id": g.request_id,
                "token": None if caller is None else caller.id,
                "role": None if caller is None else caller.role,
                "client": request.remote_addr,
                # What it was about: vnic, host, subnet and so on, as their ids in the path.
                **{name.removesuffix("_id"): value for name, value in (request.view_args or {}).items()},
            }
        },
    )
    return response
