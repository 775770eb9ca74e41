"""What the kernel itself says about a container: its limit, its kills, its processes."""

from pathlib import Path

from testbed.node_remains import CGROUP_ROOT, hierarchies
from testbed.processes import ProgramFailed


def oom_kills(container_id: str, parent: str = CGROUP_ROOT) -> int:
    """Return how many processes of the container the kernel has killed for want of memory.

    `parent`: the cgroup of all containers; the real node's, where another is not named.
    """
    folder = _memory_cgroup(container_id, parent)
    name = "memory.events" if _is_v2(folder) else "memory.oom_control"
    counts = dict(line.split() for line in (folder / name).read_text().splitlines())
    return int(counts["oom_kill"])


def memory_limit(container_id: str) -> int | None:
    """Return the container's memory limit in bytes, None without one."""
    folder = _memory_cgroup(container_id)
    text = (folder / ("memory.max" if _is_v2(folder) else "memory.limit_in_bytes")).read_text().strip()
    return None if text == "max" or int(text) >= 2**62 else int(text)


def processes(container_id: str) -> tuple[int, ...]:
    """The processes of the container, by their ids on this machine."""
    folder = _memory_cgroup(container_id)
    return tuple(int(line) for line in (folder / "cgroup.procs").read_text().split())


def _memory_cgroup(container_id: str, parent: str = CGROUP_ROOT) -> Path:
    """Find the container's cgroup by its id (in a status: `containerd://...`)."""
    name = container_id.rpartition("/")[2]
    for hierarchy in hierarchies():
        if hierarchy.name in {"memory", "cgroup"}:
            for folder in (hierarchy / parent.lstrip("/")).rglob(name):
                return folder
    raise ProgramFailed(f"no memory cgroup for the container {container_id}")


def _is_v2(folder: Path) -> bool:
    return (folder / "memory.max").exists()
