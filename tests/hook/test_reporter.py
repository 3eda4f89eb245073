"""The reporter, with a real spool and a real HTTP server in the control plane's place."""

import gzip
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hook.stand_in import StandIn, assigned, decoded
from lab.waiting import wait_until
from leasehold_hook.border import Level
from leasehold_hook.parameters import Parameters
from leasehold_hook.reporter import Reporter
from leasehold_hook.spool import Spool

BOOT = "11111111-1111-4111-8111-111111111111"
NOW_MS = 1_700_000_000_999
TOKEN = "a-secret-token"
WAIT_S = 20

Answer = tuple[int, bytes]
Report = list[dict[str, Any]]


class ControlPlane(ThreadingHTTPServer):
    """Takes reports. `answer` can be replaced: it gets the lines of a report, and gives status and body."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.reports: list[Report] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.connections = 0
        self.answer: Callable[[Report], Answer] = stored
        self.token = TOKEN
        self.hang_up = False

    @property
    def sequences(self) -> list[int]:
        return [event["seq"] for report in self.reports for event in report]


def stored(report: Report) -> Answer:
    return 200, json.dumps({"acknowledged": report[-1]["seq"]}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ControlPlane

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        report = decoded(gzip.decompress(body))
        self.server.requests.append((self.path, dict(self.headers)))
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            status, answer = 401, b"{}"
        else:
            status, answer = self.server.answer(report)
        if status == 200:
            self.server.reports.append(report)
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        # Without "Connection: close", as a server does that loses patience with an idle connection.
        self.close_connection = self.server.hang_up

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the tests' standard error."""


@contextmanager
def serving(port: int = 0) -> Iterator[ControlPlane]:
    with ControlPlane(port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    with serving() as server:
        yield server


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


class Reporting:
    """A reporter and all that it works with."""

    def __init__(self, border: StandIn, directory: Path, parameters: Parameters, boot_order: int = 1) -> None:
        self.border = border
        self.spool = Spool(
            directory,
            boot_order=boot_order,
            boot=BOOT,
            limit=parameters.spool_limit,
            clock_ms=lambda: NOW_MS,
            log=border.log,
        )
        self.reporter = Reporter(self.spool, border, parameters, lambda: 42)

    def wait_for(self, fact: Callable[[], bool], what: str) -> None:
        wait_until(fact, WAIT_S, what)


Start = Callable[..., Reporting]


@pytest.fixture
def start(border: StandIn, tmp_path: Path, token_file: Path) -> Iterator[Start]:
    """Starts a reporter: `start(url)`; further arguments are parameters."""
    started: list[Reporting] = []

    def start_reporter(url: str | None, **more: Any) -> Reporting:
        parameters = Parameters(host_id="host a/1", report_url=url, report_token_file=token_file, **more)
        reporting = Reporting(border, tmp_path / "spool", parameters)
        started.append(reporting)
        reporting.reporter.start()
        return reporting

    yield start_reporter
    for reporting in started:
        reporting.reporter.stop()


def everything_arrived(control_plane: ControlPlane, count: int) -> Callable[[], bool]:
    return lambda: control_plane.sequences == [*range(1, count + 1)]


def test_events_arrive_in_order(start: Start, control_plane: ControlPlane, border: StandIn) -> None:
    border.events += [assigned(number) for number in range(2_500)]
    reporting = start(control_plane.url)
    reporting.wait_for(everything_arrived(control_plane, 2_500), "2,500 events arrive in order")


def test_a_report_has_at_most_a_thousand_lines(start: Start, control_plane: ControlPlane, border: StandIn) -> None:
    border.events += [assigned(number) for number in range(2_500)]
    reporting = start(control_plane.url)
    reporting.wait_for(everything_arrived(control_plane, 2_500), "all events arrive")
    assert max(len(report) for report in control_plane.reports) <= 1_000


def test_a_report_names_host_boot_and_boot_order(start: Start, control_plane: ControlPlane, border: StandIn) -> None:
    border.events.append(assigned())
    start(control_plane.url).wait_for(everything_arrived(control_plane, 1), "the event arrives")
    path, headers = control_plane.requests[0]
    assert path == f"/v1/hosts/host%20a%2F1/events?boot={BOOT}&boot_order=1"
    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers["Content-Encoding"] == "gzip"


def test_a_report_says_how_much_waits_and_was_lost(start: Start, control_plane: ControlPlane, border: StandIn) -> None:
    border.events += [assigned(number) for number in range(1_200)]
    border.lost = 3
    start(control_plane.url).wait_for(everything_arrived(control_plane, 1_200), "all events arrive")
    sizes = [len(report) for report in control_plane.reports]
    told = [
        (int(headers["Leasehold-Spooled"]), int(headers["Leasehold-Lost"])) for _, headers in control_plane.requests
    ]
    assert told == [(sum(sizes[number:]), 3) for number in range(len(sizes))]
    assert int(control_plane.requests[-1][1]["Leasehold-Spooled-Octets"]) > 100 * sizes[-1]


def test_a_path_in_the_url_is_kept(start: Start, control_plane: ControlPlane, border: StandIn) -> None:
    border.events.append(assigned())
    start(control_plane.url + "/leasehold").wait_for(everything_arrived(control_plane, 1), "the event arrives")
    assert control_plane.requests[0][0].startswith("/leasehold/v1/hosts/")


def test_one_connection_serves_many_reports(start: Start, control_plane: ControlPlane, border: StandIn) -> None:
    border.events += [assigned()] * 5_000
    start(control_plane.url).wait_for(everything_arrived(control_plane, 5_000), "all events arrive")
    assert (len(control_plane.reports) > 1, control_plane.connections) == (True, 1)


def test_a_connection_that_the_server_closed_is_opened_anew_without_an_error(
    start: Start, control_plane: ControlPlane, border: StandIn
) -> None:
    control_plane.hang_up = True
    border.events += [assigned()] * 5_000
    reporting = start(control_plane.url)
    reporting.wait_for(everything_arrived(control_plane, 5_000), "all events arrive")
    assert border.logged == []


def test_what_is_acknowledged_leaves_the_spool(
    start: Start, control_plane: ControlPlane, border: StandIn, tmp_path: Path
) -> None:
    border.events += [assigned()] * 10
    reporting = start(control_plane.url)
    reporting.wait_for(lambda: reporting.reporter.figures.sent == 10, "ten events are acknowledged")
    reporting.reporter.stop()
    assert (reporting.reporter.figures.spooled, list((tmp_path / "spool").iterdir())) == (0, [])


def test_what_is_acknowledged_in_part_is_sent_from_there(
    start: Start, control_plane: ControlPlane, border: StandIn
) -> None:
    control_plane.answer = lambda report: (200, json.dumps({"acknowledged": report[0]["seq"]}).encode())
    border.events += [assigned()] * 5
    reporting = start(control_plane.url)
    reporting.wait_for(lambda: reporting.reporter.figures.sent == 5, "five events are acknowledged one by one")
    assert [report[0]["seq"] for report in control_plane.reports] == [1, 2, 3, 4, 5]


def test_events_wait_for_a_control_plane_that_is_away(start: Start, border: StandIn) -> None:
    with serving() as gone:
        port = gone.server_port
    border.events += [assigned()] * 10
    reporting = start(f"http://127.0.0.1:{port}")
    reporting.wait_for(lambda: reporting.reporter.figures.last_error is not None, "the reporter notices")
    with serving(port) as back:
        reporting.wait_for(everything_arrived(back, 10), "the events arrive once it is back")
        reporting.wait_for(lambda: reporting.reporter.figures.last_error is None, "the error is over")
    assert [level for level, identifier, _ in border.logged if identifier == "REPORTING"] == [Level.INFO]


def test_an_outage_is_logged_once_however_long_it_is(start: Start, border: StandIn) -> None:
    with serving() as gone:
        url = gone.url
    border.events.append(assigned())
    reporting = start(url)
    reporting.wait_for(lambda: reporting.reporter._failures > 2, "three attempts fail")
    assert len(border.logged_as("NOT_REPORTED")) == 1


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (400, Level.ERROR),
        (403, Level.WARN),
        (413, Level.ERROR),
        (429, Level.WARN),
        (500, Level.WARN),
        (302, Level.WARN),
    ],
)
def test_events_that_are_refused_are_kept_and_sent_again(
    status: int, level: Level, start: Start, control_plane: ControlPlane, border: StandIn
) -> None:
    answers = iter([(status, b"why not")])
    control_plane.answer = lambda report: next(answers, stored(report))
    border.events += [assigned()] * 3
    reporting = start(control_plane.url)
    reporting.wait_for(everything_arrived(control_plane, 3), "the events arrive at the second attempt")
    first = border.logged[0]
    assert first[:2] == (level, "NOT_REPORTED")
    assert f"answered {status} to events 1–3: why not" in first[2]


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"acknowledged": "3"}', b'{"acknowledged": 0}', b"\xff"])
def test_an_answer_without_progress_is_an_error_and_not_a_loop(
    answer: bytes, start: Start, control_plane: ControlPlane, border: StandIn
) -> None:
    answers = iter([(200, answer)])
    control_plane.answer = lambda report: next(answers, stored(report))
    border.events += [assigned()] * 3
    reporting = start(control_plane.url)
    reporting.wait_for(lambda: reporting.reporter.figures.sent == 3, "the events are acknowledged in the end")
    assert len(border.logged_as("NOT_REPORTED")) == 1


def test_an_acknowledgement_past_the_batch_forgets_the_batch_only(
    start: Start, control_plane: ControlPlane, border: StandIn
) -> None:
    control_plane.answer = lambda report: (200, b'{"acknowledged": 1000000}')
    border.events += [assigned()] * 2_500
    reporting = start(control_plane.url)
    reporting.wait_for(everything_arrived(control_plane, 2_500), "all events arrive all the same")


def test_a_new_token_is_read_when_the_old_one_is_refused(
    start: Start, control_plane: ControlPlane, border: StandIn, token_file: Path
) -> None:
    control_plane.token = "renewed"
    border.events.append(assigned())
    reporting = start(control_plane.url)
    reporting.wait_for(lambda: reporting.reporter.figures.last_error is not None, "the old token is refused")
    token_file.write_text("renewed")
    reporting.wait_for(everything_arrived(control_plane, 1), "the event arrives with the new token")


def test_a_token_is_never_logged(start: Start, control_plane: ControlPlane, border: StandIn, token_file: Path) -> None:
    control_plane.token = "another"
    border.events.append(assigned())
    reporting = start(control_plane.url)
    reporting.wait_for(lambda: reporting.reporter._failures > 1, "the token is refused twice")
    token_file.write_text(f"{TOKEN} and more")
    reporting.wait_for(lambda: len(border.logged) > 1, "the broken file is noticed")
    assert TOKEN not in repr(border.logged)


def test_new_parameters_take_effect_at_once(
    start: Start, control_plane: ControlPlane, border: StandIn, token_file: Path
) -> None:
    with serving() as gone:
        url = gone.url
    border.events.append(assigned())
    reporting = start(url)
    reporting.wait_for(lambda: reporting.reporter._failures > 2, "reporting to the old URL fails")
    reporting.reporter.configure(
        Parameters(host_id="h", report_url=control_plane.url, report_token_file=token_file, spool_limit=70_000)
    )
    reporting.wait_for(everything_arrived(control_plane, 1), "the event arrives at the new URL")
    assert (control_plane.requests[0][0][:17], reporting.spool.limit) == ("/v1/hosts/h/event", 70_000)


def test_without_a_url_events_stay_in_the_spool(start: Start, border: StandIn) -> None:
    border.events += [assigned()] * 10
    reporting = start(None)
    reporting.wait_for(lambda: reporting.reporter.figures.spooled == 10, "ten events are spooled")
    assert reporting.reporter.figures.reporting is False


def test_what_earlier_boots_left_comes_first(
    start: Start, control_plane: ControlPlane, border: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "spool").mkdir()
    left = tmp_path / "spool" / f"0-{BOOT[:-1]}2-1.ndjson"
    left.write_bytes(b'{"seq":1,"type":"lease.assigned"}\n{"seq":2,"type":"lease.ass')
    border.events.append(assigned())
    start(control_plane.url).wait_for(lambda: len(control_plane.reports) == 2, "two boots are reported")
    assert [event["type"] for event in control_plane.reports[0]] == ["lease.assigned", "events.gap"]
    assert [path.partition("boot_order=")[2] for path, _ in control_plane.requests] == ["0", "1"]


def test_rejections_are_reported_once_a_window(start: Start, control_plane: ControlPlane, border: StandIn) -> None:
    border.rejections.append({"type": "client.rejected", "count": 1})
    reporting = start(control_plane.url, rejection_window=3_600)
    reporting.wait_for(everything_arrived(control_plane, 1), "the rejections of the first window arrive")
    border.rejections.append({"type": "client.rejected", "count": 2})
    border.events.append(assigned())
    reporting.wait_for(everything_arrived(control_plane, 2), "an event arrives within the window")
    assert len(border.rejections) == 1


def test_rejections_are_reported_at_unload(start: Start, control_plane: ControlPlane, border: StandIn) -> None:
    border.events.append(assigned())
    reporting = start(control_plane.url, rejection_window=3_600)
    reporting.wait_for(everything_arrived(control_plane, 1), "the window has begun")
    border.rejections.append({"type": "client.rejected", "count": 2})
    reporting.reporter.flush()
    reporting.wait_for(everything_arrived(control_plane, 2), "the rejections arrive within the window")


def test_statistics_are_set(start: Start, control_plane: ControlPlane, border: StandIn) -> None:
    border.lost = 5
    reporting = start(control_plane.url)
    reporting.wait_for(lambda: len(border.statistics) == 8, "all statistics are set")
    assert border.statistics == {
        "events-queued": 0,
        "events-sent": 0,
        "events-lost": 5,
        "spool-octets": 0,
        "rejected-unknown": 3,
        "rejected-withdrawn": 0,
        "rejected-doubt": 0,
        "reservations": 42,
    }


def test_the_thread_has_the_lowest_priority(start: Start, border: StandIn) -> None:
    start(None).wait_for(lambda: border.lowered == 1, "the thread lowers its priority")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1, and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=leasehold", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*request, *names, "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True
    )
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
def secure_control_plane(control_plane: ControlPlane, certificate: Path) -> ControlPlane:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    control_plane.socket = tls.wrap_socket(control_plane.socket, server_side=True)
    control_plane.url = control_plane.url.replace("http:", "https:")
    return control_plane


def test_events_go_over_https_to_a_control_plane_that_the_ca_file_vouches_for(
    start: Start, secure_control_plane: ControlPlane, border: StandIn, certificate: Path
) -> None:
    border.events.append(assigned())
    reporting = start(secure_control_plane.url, report_ca_file=certificate)
    reporting.wait_for(everything_arrived(secure_control_plane, 1), "the event arrives over https")


def test_nothing_is_sent_to_an_https_server_that_nobody_vouches_for(
    start: Start, secure_control_plane: ControlPlane, border: StandIn
) -> None:
    border.events.append(assigned())
    reporting = start(secure_control_plane.url)
    reporting.wait_for(lambda: reporting.reporter.figures.last_error is not None, "the reporter refuses the server")
    assert "CERTIFICATE_VERIFY_FAILED" in str(reporting.reporter.figures.last_error)
    assert secure_control_plane.requests == []


class FailsOnce(StandIn):
    """Has a defect that shows at the first drain."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = False

    def drain_events(self, next_sequence: int) -> tuple[bytes, int]:
        if not self.failed:
            self.failed = True
            raise RuntimeError("a defect")
        return super().drain_events(next_sequence)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_does_not_end_reporting(control_plane: ControlPlane, token_file: Path, tmp_path: Path) -> None:
    border = FailsOnce()
    border.events.append(assigned())
    parameters = Parameters(host_id="h", report_url=control_plane.url, report_token_file=token_file)
    reporting = Reporting(border, tmp_path / "spool", parameters)
    reporting.reporter.start()
    reporting.wait_for(everything_arrived(control_plane, 1), "the event arrives all the same")
    reporting.reporter.stop()
