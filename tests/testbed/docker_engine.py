"""A Docker engine of its own: Debian's dockerd with its own socket, data and containerd, and no network set up."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed import docker_remains, images
from testbed.commands import CommandFailed, run
from testbed.processes import Area, Program, ProgramFailed

COMMANDS = ("dockerd", "docker", "containerd", "runc", "docker-compose")
START_SECONDS = 60.0
STOP_SECONDS = 30.0
IMAGE = "hostroot:local"


def what_is_missing() -> str | None:
    """Return one sentence that says why no engine can run here, or None."""
    if sys.platform != "linux":
        return "A Docker engine of one's own needs Linux; this machine runs another system."
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        return f"A Docker engine needs {', '.join(missing)}: run `sudo make system`."
    if os.geteuid() != 0:
        return "A Docker engine needs root: run the same command with sudo."
    return None


class DockerEngine:
    """One dockerd; as a context manager it starts, and leaves nothing behind.

    It makes no bridge and no rule of a firewall: containers have the machine's network, or one that a test makes.
    """

    def __init__(self, area: Area) -> None:
        docker_remains.sweep()
        self.home = docker_remains.new_home()
        self.socket = self.home / "docker.sock"
        self.address = f"unix://{self.socket}"
        config = self.home / "daemon.json"
        config.write_text("{}")
        self.program: Program = area.program(
            "dockerd",
            [
                "dockerd",
                f"--config-file={config}",
                f"--data-root={self.home / 'data'}",
                f"--exec-root={self.home / 'exec'}",
                f"--pidfile={self.home / 'dockerd.pid'}",
                f"--host={self.address}",
                f"--cgroup-parent={docker_remains.cgroup(self.home)}",
                "--storage-driver=vfs",
                "--bridge=none",
                "--iptables=false",
                "--ip-masq=false",
            ],
        )

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        self.program.start()
        self.program.wait_until(self._answers, "the Docker engine to answer", START_SECONDS)
        return self

    def stop(self) -> None:
        """Stop it as a system does; its containers end with it."""
        self.program.stop(STOP_SECONDS)

    def __enter__(self) -> Self:
        try:
            self.start()
            archive = images.host_root_image(self.home / "image.tar", IMAGE)
            self.docker("load", "--input", archive)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        if self.program.running():
            names = self.docker("ps", "--all", "--quiet", check=False).split()
            if names:
                self.docker("rm", "--force", "--volumes", *names, check=False)
            self.docker("network", "prune", "--force", check=False)
            self.stop()
        docker_remains.remove(self.home)

    def docker(self, *words: str | Path, check: bool = True, timeout: float = 60) -> str:
        """Run the client; raises CommandFailed."""
        return run(["docker", f"--host={self.address}", *words], check=check, timeout=timeout)

    def compose(self, file: Path, project: str, *words: str, timeout: float = 120) -> str:
        """Run docker-compose for a file; `words` may begin with another --file. Raises CommandFailed."""
        return run(
            ["docker-compose", f"--file={file}", f"--project-name={project}", *words],
            env={"DOCKER_HOST": self.address},
            timeout=timeout,
        )

    def inspect(self, name: str) -> dict[str, Any]:
        """What the engine says of a container."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", name))
        return found[0]

    def _answers(self) -> bool:
        try:
            self.docker("version", timeout=5)
        except CommandFailed:
            return False
        return True


def mounts(*folders: str | Path) -> Sequence[str]:
    """The machine's programs, and these folders, read-only: what a container of the empty image needs."""
    wanted = [*images.host_folders(), *(str(folder) for folder in folders)]
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        wanted.append(sys.base_prefix)
    return [f"{folder}:{folder}:ro" for folder in dict.fromkeys(wanted)]


def require_engine() -> None:
    """Raise ProgramFailed where no engine can run."""
    if missing := what_is_missing():
        raise ProgramFailed(missing)
