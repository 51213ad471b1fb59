"""How much memory the events may take, and where they are kept when they take more."""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["event_cache", "memory_for", "user_cache"]

SHARE = 0.5
"""Of what is free, where nobody says how much may be taken."""
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""What a container may take, and what it has taken, in both versions of cgroups."""


def memory_for(stated: int | None) -> float:
    """Bytes that the events of a run may take: as stated, or half of what is free."""
    return SHARE * _free() if stated is None else float(stated)


def user_cache() -> Path:
    """Where this user's programs keep what they can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "diff-pipeline"


def event_cache() -> Path:
    """Where events are kept, if a run does not say where."""
    return user_cache() / "events"


def _free() -> float:
    """Bytes that this process may still take, on this machine and in its container."""
    free = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024.0 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    for limit, taken in LIMITS:
        with suppress(OSError, ValueError):
            free.append(float(int(limit.read_text()) - int(taken.read_text())))
    return max(0.0, min(free))
