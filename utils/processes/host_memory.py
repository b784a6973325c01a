"""Memory of this machine, within the limits of its container."""

import math
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUPS = (  # limit and usage of a container: cgroup v2, v1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def free_bytes() -> float:
    """Return the bytes still available; infinite if unknown."""
    free = [_meminfo("MemAvailable")]
    for limit, used in GROUPS:
        if (most := _limit(limit)) < math.inf:
            free.append(most - float(used.read_text(encoding="ascii")) + _file_cache(limit.parent))
    return min(free)


def total_bytes() -> float:
    """Return the bytes that all programs here may use together; infinite if unknown."""
    return min(_meminfo("MemTotal"), *(_limit(limit) for limit, _ in GROUPS))


def _meminfo(name: str) -> float:
    if not MEMINFO.exists():
        return math.inf
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
    return float(lines[name].split()[0]) * 1024


def _limit(path: Path) -> float:
    text = path.read_text(encoding="ascii").strip() if path.exists() else "max"
    return float(text) if text.isdecimal() else math.inf


def _file_cache(group: Path) -> float:
    """Bytes of a container's file cache, which the kernel frees on demand."""
    stat = group / "memory.stat"
    lines = dict(line.split(" ", 1) for line in stat.read_text(encoding="ascii").splitlines()) if stat.exists() else {}
    return sum(float(lines.get(name, "0")) for name in ("active_file", "inactive_file"))
