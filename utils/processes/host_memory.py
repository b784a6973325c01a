"""Memory of this machine, within the limits of its container."""

import math
import re
from pathlib import Path

GIB = 2**30
MEMINFO = Path("/proc/meminfo")
GROUPS = (  # limit and usage of a container: cgroup v2, v1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
FREED_ON_DEMAND = "active_file", "inactive_file"  # the file cache, by its names in a container's memory.stat


def free_bytes() -> float:
    """Return the bytes still available; infinite if unknown."""
    free = [field(MEMINFO, "MemAvailable", math.inf)]
    for limit, used in GROUPS:
        if (most := _limit(limit)) < math.inf:
            caches = (field(limit.parent / "memory.stat", name, 0) for name in FREED_ON_DEMAND)
            free.append(most - float(used.read_text(encoding="ascii")) + sum(caches))
    return min(free)


def total_bytes() -> float:
    """Return the bytes that all programs here may use together; infinite if unknown."""
    return min(field(MEMINFO, "MemTotal", math.inf), *(_limit(limit) for limit, _ in GROUPS))


def field(path: Path, name: str, unknown: float) -> float:
    """Return a field of a file of the kernel, in bytes; `unknown` if there is no such file or field."""
    text = path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
    found = re.search(rf"^{name}:?\s+(\d+)( kB)?$", text, re.MULTILINE)
    return float(found[1]) * (1024 if found[2] else 1) if found else unknown


def _limit(path: Path) -> float:
    text = path.read_text(encoding="ascii").strip() if path.exists() else "max"
    return float(text) if text.isdecimal() else math.inf
