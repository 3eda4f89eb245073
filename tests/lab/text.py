"""Reading logs."""

from pathlib import Path


def tail(path: Path, lines: int = 40) -> str:
    """The last lines of a log file; empty if there is none."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""
