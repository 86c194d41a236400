"""Whether the kernel killed something in this container because its memory ran out."""

from __future__ import annotations

from pathlib import Path


def oom_kills(cgroup_dir: Path) -> int:
    """How often so far, by the container's own cgroup, version 2 or 1; 0 where neither tells."""
    for file in (cgroup_dir / "memory.events", cgroup_dir / "memory" / "memory.oom_control"):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.strip().isdigit():
                return int(count)
    return 0
