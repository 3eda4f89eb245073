"""Tables: what is broken where the terminal ends, and what never is."""

from collections.abc import Callable

import pytest
from rich.cells import cell_len

from leasehold.cli.printing import print_fields, print_table

MAC = "b2:ab:42:00:00:0a"
SENTENCE = "Others are to serve blue before it stops, or it does not answer."
COLUMNS: dict[str, Callable[[tuple[str, str, str]], object]] = {
    "mac": lambda each: each[0],
    "subnet": lambda each: each[1],
    "detail": lambda each: each[2],
}


def table(capsys: pytest.CaptureFixture[str], *rows: tuple[str, str, str]) -> list[str]:
    print_table(COLUMNS, rows)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_sentences_are_broken_to_fit_and_words_are_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = table(capsys, (MAC, "1000000000", SENTENCE))
    assert lines[2].split()[:2] == [MAC, "1000000000"]
    assert len(lines) > 3
    assert max(map(cell_len, lines)) == 60
    assert " ".join(line[31:].strip() for line in lines[2:]) == SENTENCE


def test_what_does_not_fit_stays_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert table(capsys, (MAC, "1000000000", "none"))[2].split() == [MAC, "1000000000", "none"]
    print_fields(COLUMNS, (MAC, "1000000000", "none"))
    assert MAC in capsys.readouterr().out


def test_what_another_program_reads_is_not_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long = " ".join([SENTENCE] * 20)
    assert table(capsys, (MAC, "1000000000", long))[2].endswith(long)
