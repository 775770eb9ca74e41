"""What a Docker engine of ours leaves when it ends, or was killed: processes, cgroups, mounts, its folder."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from testbed.node_remains import hierarchies

PREFIX = "airflow-tuner-docker-"
TEMPORARY = Path("/tmp")  # noqa: S108 - as short as can be, and the name is not guessed
KILL_SECONDS = 10.0


def new_home() -> Path:
    """A folder that names this process; short, as the path of a socket has at most 107 characters."""
    home = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=TEMPORARY))
    home.chmod(0o711)
    return home


def cgroup(home: Path) -> str:
    """The cgroup of all containers of the engine in a folder."""
    return f"/{home.name}"


def sweep() -> None:
    """Remove what engines left whose run is gone."""
    for home in TEMPORARY.glob(f"{PREFIX}*"):
        told = home.name.removeprefix(PREFIX).partition("-")[0]
        if told.isdigit() and not psutil.pid_exists(int(told)):
            remove(home)


def remove(home: Path) -> None:
    """Kill and remove all that belongs to an engine that has ended; nothing outside of its folder and its cgroup."""
    _kill_shims(home)
    _kill_containers(home)
    for _ in range(2):
        for place in sorted(_mounts(home), reverse=True):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)


def _kill_shims(home: Path) -> None:
    """Its containerd, and the parents of its containers: each names its socket on its command line."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("containerd") and any(str(home) in word for word in process.cmdline()):
                process.kill()
                process.wait(KILL_SECONDS)


def _kill_containers(home: Path) -> None:
    deadline = time.monotonic() + KILL_SECONDS
    for hierarchy in hierarchies():
        root = hierarchy / home.name
        for folder, _, _ in os.walk(root, topdown=False):
            group = Path(folder)
            while group.exists() and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    for pid in (group / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                with contextlib.suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.05)


def _mounts(home: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [place for line in lines if (place := line.split()[1]).startswith(f"{home}/")]
