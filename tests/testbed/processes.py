"""Programs that a run starts, watches and stops, and the folder that lets the next run clear up after a killed one."""

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from testbed.cache import cache_folder

TAIL_LINES = 20
POLL_SECONDS = 0.1
PORTS = range(20_000, 30_000)  # below what Linux and macOS give to outgoing connections, and below NodePorts
AREA_MARK = "AIRFLOW_TUNER_AREA"  # in the environment of every program of an area and of what those start
START_TIME_SLACK_SECONDS = 2.0  # start times move a little when the wall clock is set

# Asks the kernel to kill this process when the one that started it dies, then becomes the program.
DIE_WITH_PARENT = """\
import ctypes, os, sys
parent = int(sys.argv[1])
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() != parent:
    sys.exit("the run that started this program is gone")
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""

_given_ports: set[int] = set()


class ProgramFailed(Exception):  # noqa: N818 - it reads as what happened, and the tests say it so
    """A program did not start, ended too early or was not ready in time; the message ends with its last log lines."""


class Program:
    """One supervised child with its own session and log file; it dies with this process where the kernel offers that.

    `inside` names a process whose mount and network namespaces the program joins. With `area` the program is recorded
    there, so that the next run can remove it should this one be killed.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        inside: int | None = None,
        area: "Area | None" = None,
    ) -> None:
        self.name = name
        self.argv = [str(word) for word in argv]
        self.log = log
        self.env = env
        self.cwd = cwd
        self.inside = inside
        self.area = area
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; an error before `start`."""
        if self._child is None:
            raise ProgramFailed(f"{self.name} was not started")
        return self._child.pid

    def running(self) -> bool:
        """Whether it was started and has not exited."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> Self:
        """Starts the program and returns at once; use `wait_until` for readiness. `env` is added to our environment."""
        if self.running():
            raise ProgramFailed(f"{self.name} is running already, as process {self.pid}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        argv = self.argv
        if self.inside is not None:
            argv = ["nsenter", f"--target={self.inside}", "--mount", "--net", *self._inner_folder(), *argv]
        if sys.platform == "linux":
            argv = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *argv]
        try:
            with self.log.open("ab") as log:
                self._child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(self.env or {}), **self._mark()},
                    cwd=None if self.inside is not None else self.cwd,
                    start_new_session=True,
                )
        except OSError as error:
            raise ProgramFailed(f"{self.name} cannot be started: {error}") from error
        if self.area is not None:
            self.area.remember(self._child.pid)
        return self

    def _mark(self) -> dict[str, str]:
        return {AREA_MARK: str(self.area.path)} if self.area is not None else {}

    def _inner_folder(self) -> list[str]:
        return [f"--wdns={self.cwd}"] if self.cwd is not None else []

    def wait_until(self, check: Callable[[], bool], what: str, timeout: float) -> None:
        """Polls `check` until it holds; an OSError counts as not yet.

        Raises ProgramFailed at once when the program exits, and after `timeout` seconds.
        """
        wait_for([self], check, what, timeout)

    def stop(self, grace: float = 5) -> None:
        """SIGTERM, after `grace` seconds SIGKILL, then whatever is left of its process group; waits for the exit."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(grace)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole process group, as a crash would; waits for the exit."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def failure(self, sentence: str) -> ProgramFailed:
        """Returns the error that says `sentence` and shows the program's last log lines."""
        return ProgramFailed(f"{sentence}\nlast log lines of {self.name} ({self.log}):\n{self.tail()}")

    def exit_failure(self, what: str) -> ProgramFailed:
        """Returns the error for a program that ended before `what` came about."""
        code = self._child.returncode if self._child is not None else None
        how = "was not started" if code is None else f"ended with {_exit_words(code)}"
        return self.failure(f"{self.name} {how} before {what}")

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Returns the last lines of its log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 64 * 1024))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def _exit_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def wait_for(programs: Sequence[Program], check: Callable[[], bool], what: str, timeout: float) -> None:
    """Polls `check` until it holds; an OSError counts as not yet.

    Raises ProgramFailed at once when one of the programs exits, and after `timeout` seconds (with the first one's log).
    """
    deadline = time.monotonic() + timeout
    last_error = ""
    while True:
        for program in programs:
            if not program.running():
                raise program.exit_failure(what)
        try:
            if check():
                return
            last_error = ""
        except OSError as error:
            last_error = f" ({error})"
        if time.monotonic() >= deadline:
            raise programs[0].failure(f"waited {timeout:g} s for {what}, in vain{last_error}")
        time.sleep(POLL_SECONDS)


def free_port() -> int:
    """Returns a port free for TCP and UDP on every address, never given out twice by this process."""
    for _ in range(200):
        port = random.choice(PORTS)  # noqa: S311 - not a secret
        if port in _given_ports:
            continue
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("", port))
        except OSError:
            continue
        _given_ports.add(port)
        return port
    raise ProgramFailed(f"found no free port between {PORTS.start} and {PORTS.stop} in 200 tries")


class Startable(ABC):
    """What is started and stopped; as a context it runs."""

    @abstractmethod
    def start(self) -> Self:
        """Return when it works."""

    @abstractmethod
    def stop(self) -> None:
        """Leave nothing running."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Area:
    """A run's own folder, `<cache>/run/<name>-<pid>`, locked while the run lives.

    It lists every child's process id and start time, so that `sweep` can stop and remove what a killed run left.
    """

    def __init__(self, name: str) -> None:
        self.path = _runs_folder() / f"{name}-{os.getpid()}"
        fresh = self.path.with_name(f".{self.path.name}")  # out of sight of a sweep until it is locked
        fresh.mkdir(parents=True)
        self._lock = (fresh / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fresh.rename(self.path)

    def remember(self, pid: int) -> None:
        """Records a child, so that a later sweep finds it."""
        with contextlib.suppress(psutil.NoSuchProcess), (self.path / "children").open("a") as children:
            children.write(json.dumps([pid, psutil.Process(pid).create_time()]) + "\n")

    def program(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        inside: int | None = None,
    ) -> Program:
        """Returns a program of this run, not yet started, with its log in `<path>/<name>.log`."""
        return Program(name, argv, log=self.path / f"{name}.log", env=env, cwd=cwd, inside=inside, area=self)

    def clean(self) -> None:
        """Stops what still runs and removes the folder; with AIRFLOW_TUNER_KEEP set, its logs stay until `down`."""
        _stop_children(self.path)
        if os.environ.get("AIRFLOW_TUNER_KEEP"):
            _keep_logs(self.path)
            self._lock.close()
        else:
            shutil.rmtree(self.path, ignore_errors=True)
            self._lock.close()

    @staticmethod
    def living(name: str) -> dict[int, Path]:
        """Returns the folders of the runs of that name that live now, by the process id of the run."""
        found = {}
        for folder in _runs_folder().glob(f"{name}-*"):
            with contextlib.suppress(OSError, ValueError), (folder / "lock").open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    found[int(folder.name.removeprefix(f"{name}-"))] = folder
        return found

    @staticmethod
    def sweep(*, kept: bool = False) -> list[str]:
        """Stops and removes what runs left whose process is gone, with `kept` also kept logs; one sentence for each."""
        told = []
        for folder in sorted(_runs_folder().glob("[!.]*-*")):
            if (folder / "kept").exists():
                if kept:
                    shutil.rmtree(folder, ignore_errors=True)
                    told.append(f"Removed the kept logs of the run {folder.name}.")
                continue
            with contextlib.suppress(OSError), (folder / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its run lives
                stopped = _stop_children(folder)
                shutil.rmtree(folder, ignore_errors=True)
                told.append(f"Removed what the dead run {folder.name} left: {stopped} running programs and its files.")
        return told


def _runs_folder() -> Path:
    return cache_folder() / "run"


def _keep_logs(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.suffix != ".log":
            entry.unlink(missing_ok=True)
    (folder / "kept").touch()


def _stop_children(folder: Path) -> int:
    """Kills the recorded children that still run, and what carries the area's mark; returns how many those were."""
    victims = {process.pid: process for process in [*_recorded(folder), *_marked(folder)]}
    for process in victims.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(victims.values(), timeout=5)
    return len(victims)


def _recorded(folder: Path) -> Iterator[psutil.Process]:
    try:
        lines = (folder / "children").read_text().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            pid, started = json.loads(line)
            process = psutil.Process(pid)
            same = abs(process.create_time() - started) < START_TIME_SLACK_SECONDS
            if same and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (ValueError, psutil.NoSuchProcess):
            continue  # a half-written line, or gone already


def _marked(folder: Path) -> Iterator[psutil.Process]:
    """Yields what programs of the area started and left behind, in whatever session it is now."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(AREA_MARK) == str(folder):
                yield process
