"""`python -m bench [NAME …]`: runs the benchmarks named, or all, and writes what came out to tests/bench/RESULTS.md."""

import argparse
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from bench import allocation, api, chain, deliveries, events, flood, instructions, kea
from bench.figures import Figure

_RESULTS = Path(__file__).with_name("RESULTS.md")
_BENCHMARKS = {
    "dora": kea.dora,
    "push": kea.push,
    "chain": chain.cost,
    "burst": chain.burst,
    "flood": flood.flood,
    "instructions": instructions.instructions,
    "allocation": allocation.allocation,
    "ingestion": events.ingestion,
    "start": api.start,
    "throughput": api.throughput,
    "delivery": deliveries.delivery,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measure, and write tests/bench/RESULTS.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_BENCHMARKS)}; all without any")
    names = parser.parse_args().names or list(_BENCHMARKS)
    if unknown := sorted(set(names) - set(_BENCHMARKS)):
        parser.error(f"{', '.join(unknown)}: no such benchmark; there are {', '.join(_BENCHMARKS)}")
    figures: list[Figure] = []
    for name in names:
        print(f"\n{name}", flush=True)
        figures += _BENCHMARKS[name]()
    text = _report(figures)
    _RESULTS.write_text(text)
    print(f"\n{text}")


def _report(figures: list[Figure]) -> str:
    """The new figures in the place of the same ones before, beside those that were not measured this time."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    rows, hows = _present()
    rows |= {figure.name: f"{figure.row()} {today} |" for figure in figures}
    hows |= {figure.name: f"- **{figure.name}**: {figure.how}" for figure in figures}
    lines = [
        "# Benchmarks",
        "",
        "Ratios, each between two things measured side by side in one run, in turns; the medians of the turns. "
        "`./dev bench` writes this file. What is asked for is a goal to reach, and stands beside what came out.",
        "",
        f"Run on {_machine()}",
        "",
        "| figure | ratio | asked for | ours | theirs | on |",
        "|---|---|---|---|---|---|",
        *rows.values(),
        "",
        *hows.values(),
        "",
    ]
    return "\n".join(lines)


def _present() -> tuple[dict[str, str], dict[str, str]]:
    """The rows and the explanations that the file has, by figure."""
    lines = _RESULTS.read_text().splitlines() if _RESULTS.exists() else []
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| figure |")]
    hows = [line for line in lines if line.startswith("- **")]
    return (
        {line.split(" | ")[0].removeprefix("| "): line for line in rows},
        {line.split("**")[1]: line for line in hows},
    )


def _machine() -> str:
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kea = subprocess.run(["kea-dhcp4", "-v"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{os.cpu_count()} cores ({processor}), {memory_gb:.0f} GB, Linux {platform.release()}, Kea {kea}."


if __name__ == "__main__":
    main()
