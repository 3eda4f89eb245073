#!/usr/bin/python3
"""Builds Leasehold's Kea hook: libdhcp_leasehold.so, with the package leasehold_hook beside it.

    /usr/bin/python3 hook/build.py [--output build/hook]

The library is cffi's embedding mode: it starts the Python that built it, and imports `leasehold_hook.main`. So it is
built with the system's Python, whose libpython the user that Kea runs as can read. Needs g++, kea-dev, libboost-dev,
python3-dev and python3-cffi; what is up to date is not compiled again.
"""

import argparse
import compileall
import concurrent.futures
import fcntl
import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import cffi

HOOK = Path(__file__).resolve().parent
NATIVE = HOOK / "native"
PACKAGE = HOOK / "leasehold_hook"
LIBRARY = "libdhcp_leasehold.so"
KEA_LIBRARIES = ("hooks", "dhcpsrv", "dhcp++", "stats", "cc", "asiolink", "log", "util", "exceptions")
LIBPYTHON = sysconfig.get_config_var("INSTSONAME")

COMMON = ["-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
CXX = [
    "g++",
    "-std=c++17",
    *COMMON,
    "-Werror",
    f'-DLEASEHOLD_LIBPYTHON="{LIBPYTHON}"',
    f'-DLEASEHOLD_PYTHON="{sys.executable}"',
    # Other people's headers, without our warnings; the last stands in where kea-dev lacks one.
    *("-isystem", "/usr/include/kea"),
    *("-isystem", str(NATIVE / "compat")),
    *("-isystem", sysconfig.get_path("include")),
]
# No unwind tables: a C++ exception that gets as far as cffi's C code ends the process, and does not unwind Python.
C = [
    "gcc",
    *COMMON,
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
    "-fno-exceptions",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    f"-I{NATIVE}",
    "-isystem",
    sysconfig.get_path("include"),
]
# Kea unloads and loads its hooks at every config-set, and CPython cannot be unloaded: the library stays mapped. Only
# Kea's entry points are visible.
LINK = [
    "g++",
    "-shared",
    "-Wl,-z,nodelete",
    "-Wl,-z,defs",
    "-Wl,-z,now",
    f"-Wl,--version-script={NATIVE / 'exports.map'}",
]

START_CFFI = """
#include "leasehold.h"

int leasehold_start_cffi(void);

int leasehold_start_cffi(void) {
    return cffi_start_python();
}
"""


def write_cffi_source(target: Path) -> None:
    """Writes the C code that cffi makes of the border, leasehold.h."""
    text = (NATIVE / "leasehold.h").read_text()
    declarations = text.split("/* cffi: begin */")[1].split("/* cffi: end */")[0]
    ours, pythons = declarations.split("/* ---- Implemented in Python")
    ffi = cffi.FFI()
    ffi.cdef(ours)
    ffi.embedding_api("/*" + pythons)
    ffi.embedding_init_code("import leasehold_hook.main")
    ffi.set_source("_leasehold", START_CFFI)
    ffi.emit_c_code(str(target))


def compile_source(source: Path, compiler: list[str], headers: bytes, objects: Path) -> tuple[Path, bool]:
    """Compiles unless command, source and headers are those of the last time; returns the object and whether it did."""
    target = objects / f"{source.stem}.o"
    command = [*compiler, "-c", str(source), "-o", str(target)]
    seal = hashlib.sha256("\0".join(command).encode() + headers + source.read_bytes()).hexdigest()
    stamp = target.with_suffix(".sha256")
    if target.exists() and stamp.exists() and stamp.read_text() == seal:
        return target, False
    subprocess.run(command, check=True)
    stamp.write_text(seal)
    return target, True


def build_library(output: Path, objects: Path, jobs: int) -> None:
    """Compiles what changed and links it; the library changes in one step."""
    generated = objects / "cffi_border.c"
    write_cffi_source(generated)
    headers = b"".join(path.read_bytes() for path in sorted(NATIVE.rglob("*.h")))
    sources = [(path, CXX) for path in sorted(NATIVE.glob("*.cc"))] + [(generated, C)]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        built = list(pool.map(lambda work: compile_source(work[0], work[1], headers, objects), sources))
    library = output / LIBRARY
    if library.exists() and not any(changed for _, changed in built):
        return
    fresh = objects / LIBRARY
    libraries = [f"-lkea-{name}" for name in KEA_LIBRARIES] + [f"-l:{LIBPYTHON}", "-ldl"]
    subprocess.run([*LINK, *(str(path) for path, _ in built), *libraries, "-o", str(fresh)], check=True)
    fresh.replace(library)


def copy_package(output: Path) -> None:
    """Puts the package beside the library, compiled ahead: Kea may not write there, and starts the faster for it."""
    fresh = output / "objects" / PACKAGE.name
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(PACKAGE, fresh, ignore=shutil.ignore_patterns("__pycache__"))
    # Named as installed, in tracebacks too; and by hash, since copying and packaging change the times.
    compileall.compile_dir(
        fresh,
        quiet=1,
        ddir=PACKAGE.name,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    target = output / PACKAGE.name
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def main() -> None:
    """Reads the command line and builds."""
    parser = argparse.ArgumentParser(description="Builds Leasehold's Kea hook.")
    parser.add_argument("--output", type=Path, default=HOOK.parent / "build" / "hook", help="default: build/hook")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="compilers at once")
    options = parser.parse_args()
    objects = options.output / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    with (objects / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            build_library(options.output, objects, options.jobs)
        except subprocess.CalledProcessError as failed:
            sys.exit(f"build.py: {' '.join(failed.cmd)} failed")
        copy_package(options.output)
    print(options.output / LIBRARY)


if __name__ == "__main__":
    main()
