"""The cores and the memory that this process may use, as containers and schedulers limit them.

Both set limits by control groups, of version 2 or, on systems of 2021 and before, of version 1.  A
group is bound by those above it too, so that the tightest counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """Return the number of cores this process may use."""
    cpus = len(os.sched_getaffinity(0))
    for group in _groups("cpu"):
        quota, _, period = _said(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _said(group / "cpu.cfs_quota_us"), _said(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # not max, -1 or nothing
            cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


def available_memory_gib() -> float:
    """Return the memory that is free for this process."""
    free = 2**10 * _fields(Path("/proc/meminfo"))["MemAvailable"]
    for group in _groups("memory"):
        limit = _memory_limit(group)
        used = _said(group / "memory.current") or _said(group / "memory.usage_in_bytes")
        if limit is None or not used.isdigit():
            continue
        state = _fields(group / "memory.stat")
        # what files were read into is counted as used, and given back when it is wanted
        cached = sum(
            state.get(f"total_{name}", state.get(name, 0))  # total: with the groups below
            for name in ("active_file", "inactive_file")
        )
        free = min(free, limit - int(used) + cached)
    return free / 2**30


@cache
def memory_bytes() -> int:
    """Return all memory that this process may ever have, what others now use included."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (_memory_limit(group) for group in _groups("memory"))
    return min([machine, *(limit for limit in limits if limit is not None)])


def _memory_limit(group: Path) -> int | None:
    """Return a group's limit in bytes; without one version 1 says a number beyond any machine."""
    limit = _said(group / "memory.max") or _said(group / "memory.limit_in_bytes")
    return int(limit) if limit.isdigit() else None


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's groups of a controller, the roots included.

    A container sees its own group at the root, under a path that is the machine's.
    """
    for line in _said(_OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS
        own = Path(path.lstrip("/"))
        if ".." not in own.parts:
            yield from (root / group for group in (own, *own.parents))
        yield root


def _fields(path: Path) -> dict[str, int]:
    """Return the first number behind each name of a table of the kernel, where it can be read."""
    lines = (line.replace(":", " ").split() for line in _said(path).splitlines())
    return {name: int(number) for name, number, *_ in lines}


def _said(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
