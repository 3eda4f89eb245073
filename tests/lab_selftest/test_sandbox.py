"""The sandbox: what goes in, and that nothing is left of it. They are inside the one that the tests run in."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import wait_until

SANDBOX = [sys.executable, "-m", "lab"]


@pytest.fixture
def mark() -> str:
    """A word on the command line that finds a test's processes again."""
    return f"mark-{uuid.uuid4()}"


@pytest.fixture
def sleeper(mark: str) -> Iterator[subprocess.Popen[str]]:
    """A sandbox whose command has a child of its own, which ignores every signal that can be ignored."""
    stubborn = f"trap '' INT TERM HUP; : {mark}; echo up; while :; do sleep 1000; done"
    command = ["bash", "-c", f"trap 'exit 3' INT; bash -c \"{stubborn}\" & while :; do sleep 0.1; done", mark]
    process = subprocess.Popen([*SANDBOX, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "up\n"
        yield process
        process.kill()
        process.wait()


def processes(mark: str) -> list[int]:
    """Processes with the mark on their command line, zombies excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)])
def test_the_exit_status_is_the_commands(command: str, status: int) -> None:
    assert subprocess.run([*SANDBOX, "bash", "-c", command], check=False).returncode == status


def test_a_missing_command_is_named() -> None:
    done = subprocess.run([*SANDBOX, "no-such-program"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (127, "no-such-program: No such file or directory\n")


def test_sigkill_of_the_outermost_process_leaves_no_process(sleeper: subprocess.Popen[str], mark: str) -> None:
    assert len(processes(mark)) >= 4
    sleeper.kill()
    sleeper.wait()
    wait_until(lambda: not processes(mark), 10, "no process of the sandbox is left")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_interrupts_the_command(
    sleeper: subprocess.Popen[str], mark: str, number: signal.Signals
) -> None:
    sleeper.send_signal(number)
    assert sleeper.wait(10) == 3
    assert processes(mark) == []


def test_run_is_private() -> None:
    subprocess.run([*SANDBOX, "bash", "-c", "touch /run/leasehold-lab/mine && ip netns add mine"], check=True)
    assert not Path("/run/leasehold-lab/mine").exists()
    assert not Path("/run/netns/mine").exists()


def test_temporary_files_go_with_the_sandbox() -> None:
    script = "import tempfile; print(tempfile.mkdtemp())"
    done = subprocess.run([*SANDBOX, sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("/run/tmp/")
    assert not Path(done.stdout.strip()).exists()


@pytest.mark.parametrize(("options", "same"), [(["--net"], False), ([], True)])
def test_net_makes_the_network_private(options: list[str], same: bool) -> None:
    command = [*SANDBOX, *options, "readlink", "/proc/self/ns/net"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.strip() == str(Path("/proc/self/ns/net").readlink())) == same


AS_A_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]


@pytest.mark.skipif(
    subprocess.run([*AS_A_USER, "true"], capture_output=True, check=False).returncode != 0,
    reason="users may not make namespaces here (always so in a chroot); ./dev uses sudo then",
)
@pytest.mark.parametrize("options", [["--net"], []])
def test_an_ordinary_user_needs_no_root(options: list[str]) -> None:
    script = "with lab.Lab('of-a-user') as it: it.network('blue'); it.host('a', {'blue': '192.0.2.2/24'})"
    command = [*AS_A_USER, *SANDBOX, *options, sys.executable, "-c", f"import lab\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
