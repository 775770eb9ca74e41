"""What a real node leaves on the machine, and its removal: the same steps after a clean run and after a killed one."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from testbed.processes import ProgramFailed

HOME = Path("/tmp/airflow-tuner-node")  # noqa: S108 - made with mode 0711 by root; see `make_home`
ADDRESS = "10.88.0.1"
CGROUP_ROOT = "airflow-tuner-node"
KILL_SECONDS = 20.0
_CREATED = "created-folders"


def make_home() -> None:
    """Create the node's folder; raises ProgramFailed when someone else's entry has its name."""
    with contextlib.suppress(FileExistsError):
        HOME.mkdir(mode=0o711)
    status = HOME.lstat()
    if HOME.is_symlink() or not HOME.is_dir() or status.st_uid != 0:
        raise ProgramFailed(f"{HOME} exists and is not a folder of root; remove it and try again")
    HOME.chmod(0o711)


def make_mount_points(folders: tuple[Path, ...]) -> None:
    """Create those of the folders that the machine does not have, and note them for removal."""
    for folder in folders:
        for missing in [path for path in reversed([folder, *folder.parents]) if not path.exists()]:
            with (HOME / _CREATED).open("a") as created:
                created.write(f"{missing}\n")
            missing.mkdir()


def add_address() -> None:
    """Put the address that pods know the machine by on the loopback device."""
    _ip("address", "replace", f"{ADDRESS}/32", "dev", "lo")


def device_with_address() -> str | None:
    """Return the foreign device that has our address already, as podman's bridge does.

    A node's own are loopback and the pairs to its pods.
    """
    for line in _ip("-oneline", "-4", "address", "show").splitlines():
        _, device, _, address, *_ = line.split()
        if device != "lo" and not device.startswith("veth") and address.split("/")[0] == ADDRESS:
            return device
    return None


def make_cgroups() -> None:
    """Create the cgroup under which the kubelet keeps its pods, in every hierarchy."""
    for hierarchy in hierarchies():
        (hierarchy / CGROUP_ROOT).mkdir(exist_ok=True)


def remove() -> list[str]:
    """Kill and remove all that a node leaves; one short phrase for each kind of thing found.

    Nothing outside our own cgroup, our own containerd and our own folder is touched.
    """
    told = []
    killed = _kill_containers() + _kill_shims()
    if killed:
        told.append(f"{killed} processes of containers")
    if removed := _remove_cgroups():
        told.append(f"{removed} cgroups")
    if _has_address():
        _ip("address", "del", f"{ADDRESS}/32", "dev", "lo")
        told.append(f"the address {ADDRESS}")
    if HOME.exists():
        _remove_created_folders()
        shutil.rmtree(HOME)
        told.append(str(HOME))
    return told


def hierarchies() -> list[Path]:
    """Return the root of every cgroup hierarchy: the one of v2, or each controller's of v1."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink())


def _our_cgroups() -> Iterator[Path]:
    """Yield our cgroups, the innermost first."""
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / CGROUP_ROOT, topdown=False):
            yield Path(folder)


def _pids(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _kill_containers() -> int:
    killed: set[int] = set()
    deadline = time.monotonic() + KILL_SECONDS
    while pids := {pid for group in _our_cgroups() for pid in _pids(group)}:
        if time.monotonic() > deadline:
            raise ProgramFailed(f"processes {sorted(pids)} in the cgroup {CGROUP_ROOT} outlive SIGKILL")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= pids
        time.sleep(0.05)
    return len(killed)


def _kill_shims() -> int:
    """Kill the parents of containers, which outlive their containerd; each names our socket on its command line."""
    shims = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.name().startswith("containerd-shim") and str(HOME / "containerd.sock") in process.cmdline():
                process.kill()
                shims.append(process)
    deadline = time.monotonic() + KILL_SECONDS
    while any(_lives(shim) for shim in shims):
        if time.monotonic() > deadline:
            raise ProgramFailed(f"containerd's shims outlive SIGKILL: {shims}")
        time.sleep(0.02)
    return len(shims)


def _lives(process: psutil.Process) -> bool:
    """Whether it still holds its mounts; a zombie does not, however late its parent looks."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _remove_cgroups() -> int:
    removed = 0
    for group in _our_cgroups():
        deadline = time.monotonic() + KILL_SECONDS
        while True:
            try:
                group.rmdir()
            except FileNotFoundError:
                break
            except OSError:  # busy while the kernel buries its last process
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                removed += 1
                break
    return removed


def _remove_created_folders() -> None:
    with contextlib.suppress(FileNotFoundError):
        for line in reversed((HOME / _CREATED).read_text().splitlines()):
            with contextlib.suppress(OSError):
                Path(line).rmdir()


def _has_address() -> bool:
    return f" {ADDRESS}/32 " in _ip("-oneline", "-4", "address", "show", "dev", "lo")


def _ip(*words: str) -> str:
    answer = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ProgramFailed(f"ip {' '.join(words)}: {answer.stderr.strip()}")
    return answer.stdout
