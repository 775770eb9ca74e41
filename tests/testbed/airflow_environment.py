"""Airflow itself, installed from its lock file into a folder of its own in the cache."""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from testbed.airflow_lines import AIRFLOW_3, Line
from testbed.cache import cache_folder

_COMPLETE = "complete"


class CannotInstall(Exception):  # noqa: N818 - it reads as what happened
    """Airflow cannot be installed here; the message is for people."""


def environment_folder(line: Line) -> Path:
    """Return the folder of the environment for this interpreter and lock file; it need not exist yet."""
    key = f"{line.lock_file.read_text()}\n{sys.base_prefix}\n{platform.python_version()}"
    return cache_folder() / f"airflow-{line.version}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def airflow_environment(line: Line = AIRFLOW_3) -> Path:
    """Return the virtual environment with this Airflow, installed first where it is not; raises CannotInstall.

    An install that was killed is done again; two at a time wait for each other.
    """
    folder = environment_folder(line)
    if (folder / _COMPLETE).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _COMPLETE).exists():
            _install(line, folder)
    return folder


def _install(line: Line, folder: Path) -> None:
    """Install in place: the scripts of an environment name their interpreter by path, so it cannot be moved."""
    _say(f"testbed: installing Airflow {line.version} into {folder} (once; about a minute, 340 MB)")
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    _uv("venv", "--quiet", "--python", _interpreter(), folder)
    # Compiled now, because pods see the folder read-only and would compile every module at each start.
    _uv("pip", "install", "--compile-bytecode", "--require-hashes", "--python", folder, "--requirement", line.lock_file)
    (folder / _COMPLETE).touch()
    _say(f"testbed: installed Airflow in {time.monotonic() - started:.0f} s")


def _interpreter() -> Path:
    """Return the interpreter that runs us, outside of any virtual environment."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = Path(sys.base_prefix) / "bin" / f"python{version}"
    return found if found.exists() else Path(sys.executable).resolve()


def _uv(*words: str | Path) -> None:
    """Run uv with its progress shown as it happens; raises CannotInstall."""
    code = subprocess.run(
        [sys.executable, "-m", "uv", *words],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        env={key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"},
    ).returncode
    if code != 0:
        raise CannotInstall(
            f"Airflow could not be installed (uv's exit code is {code}, its words are above);"
            " the first install needs a package index"
        )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
