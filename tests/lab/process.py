"""Ending programs that the laboratory started."""

import signal
import subprocess
from pathlib import Path

_PATIENCE_S = 10


def end(process: subprocess.Popen[bytes], signal_number: int = signal.SIGTERM) -> int:
    """Send a signal and reap; the return code. SIGKILL follows for a program that has not ended after ten seconds."""
    process.send_signal(signal_number)
    try:
        return process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def children(pid: int) -> list[int]:
    """The processes that this one started, and that run; none when it has ended itself."""
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
