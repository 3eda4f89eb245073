"""The hook's parameters."""

import json
from pathlib import Path

import pytest

from leasehold_hook.parameters import InvalidParameter, Parameters

REQUIRED = {"host-id": "host-a"}


def parse(**given: object) -> Parameters:
    return Parameters.parse(json.dumps(REQUIRED | {name.replace("_", "-"): value for name, value in given.items()}))


def refusal(**given: object) -> str:
    with pytest.raises(InvalidParameter) as refused:
        parse(**given)
    return str(refused.value)


def test_only_the_host_id_is_required() -> None:
    assert parse() == Parameters(
        host_id="host-a",
        state_directory=Path("/var/lib/kea/leasehold"),
        unknown_clients="reject",
        event_queue=65_536,
        rejection_window=10,
        rejection_table=4_096,
        report_url=None,
        report_token_file=None,
        report_ca_file=None,
        spool_limit=67_108_864,
    )


@pytest.mark.parametrize("text", ["{}", "null"])
def test_a_missing_host_id_is_named(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^host-id: is missing; set it to"):
        Parameters.parse(text)


def test_parameters_must_be_a_map() -> None:
    with pytest.raises(InvalidParameter, match=r"^parameters: \[\] is not a map"):
        Parameters.parse("[]")


def test_an_unknown_parameter_is_named_with_those_that_there_are() -> None:
    assert refusal(spool_size=1).startswith("spool-size: is not a parameter; remove it, or use one of host-id, state-")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host_id", ""),
        ("host_id", 7),
        ("host_id", "a\nb"),
        ("state_directory", "leasehold"),
        ("state_directory", None),
        ("unknown_clients", "refuse"),
        ("unknown_clients", ["drop"]),
        ("event_queue", 0),
        ("event_queue", True),
        ("event_queue", "65536"),
        ("event_queue", 2**24 + 1),
        ("rejection_window", 0),
        ("rejection_window", 1.5),
        ("rejection_table", -1),
        ("report_url", 7),
        ("report_url", "leasehold.example.org"),
        ("report_url", "ftp://leasehold.example.org"),
        ("report_url", "http://"),
        ("report_url", "http://[::1"),
        ("report_url", "http://leasehold:99999"),
        ("report_url", "http://leasehold/?a=b"),
        ("report_url", "http://lease hold/"),
        ("report_token_file", "token"),
        ("report_ca_file", 1),
        ("spool_limit", 65_535),
    ],
)
def test_a_bad_value_is_named_with_its_parameter_and_what_to_do(name: str, value: object) -> None:
    text = refusal(**{name: value})
    assert text.startswith(f"{name.replace('_', '-')}: {value!r} ")
    assert ";" in text


def test_credentials_in_the_url_are_refused_and_not_quoted() -> None:
    text = refusal(report_url="http://user:secret@leasehold")
    assert text.startswith("report-url: has credentials")
    assert "secret" not in text


def test_a_url_needs_a_token_file() -> None:
    assert refusal(report_url="http://leasehold").startswith("report-token-file: is missing")


def test_an_unreadable_token_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none"
    text = refusal(report_url="http://leasehold", report_token_file=str(path))
    assert text == (
        f"report-token-file: '{path}' cannot be read (No such file or directory); give Kea's user a readable file"
    )


@pytest.mark.parametrize("content", [b"", b"\n", b"two tokens", b"a\nb", b"\xff"])
def test_a_file_without_one_token_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    text = refusal(report_url="http://leasehold", report_token_file=str(path))
    assert text.startswith(f"report-token-file: '{path}' ")
    assert "two tokens" not in text


def test_the_token_is_read_without_the_end_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret\n")
    assert parse(report_url="http://leasehold", report_token_file=str(path)).read_token() == "secret"


def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("not a certificate")
    text = refusal(
        report_url="https://leasehold", report_token_file=str(tmp_path / "token"), report_ca_file=str(ca_file)
    )
    assert text.startswith(f"report-ca-file: '{ca_file}' cannot be used (")


def test_a_ca_file_without_https_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    text = refusal(
        report_url="http://leasehold", report_token_file=str(tmp_path / "token"), report_ca_file=str(tmp_path / "ca")
    )
    assert text.startswith("report-ca-file: ")
