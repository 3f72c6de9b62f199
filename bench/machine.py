"""Where a run happens: cores to pin to, and the facts that a reader needs to judge its numbers."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

__all__ = ["Cores", "facts", "file_system", "pinned", "raise_file_limit"]

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core serves and which one generates load; None where there is only one."""

    server: int | None
    load: int | None

    @classmethod
    def choose(cls) -> Cores:
        """The last core serves: the first one gets most interrupts."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[-1], usable[0]) if len(usable) > 1 else cls(None, None)


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started inside inherit the core, all their threads too."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> None:
    """Processes started from now on may open as many files and sockets as the system lets them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def facts(cores: Cores) -> dict[str, str]:
    """Hardware, kernel, versions, revision."""
    if cores.server is None:
        pinning = "one core for everything: server and load generator disturb each other"
    else:
        pinning = f"servers on core {cores.server}, load generator on core {cores.load}"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("uvloop", "msgpack"))
    return {
        "machine": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores usable; {pinning}",
        "load before": f"{os.getloadavg()[0]:.2f} (mean of the last minute)",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {libraries}",
        "revision": _revision(),
    }


def file_system(directory: Path) -> str:
    """The type of the file system that holds a directory, such as ext4."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text("utf-8").splitlines():
        mount, found = line.split()[1:3]
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _revision() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
