"""A real metrics-server behind the API server's aggregation layer, built from a Go module of its own.

Its libraries need not be those of the control plane, and what it costs to build (about four minutes on two cores)
is nobody's who does not ask for it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testbed.cache import cache_folder
from testbed.controlplane import ControlPlane
from testbed.processes import Area, free_port
from testbed.programs import BUILD_SECONDS, ENVIRONMENT, NO_NETWORK, BuildFailed, CannotBuild, go

SOURCES = Path(__file__).parent / "metrics-server"
PACKAGE = "sigs.k8s.io/metrics-server/cmd/metrics-server"
API = "v1beta1.metrics.k8s.io"
NAMESPACE = "kube-system"
START_SECONDS = 90.0
"""It is ready after its second look."""

RESOLUTION = 10
"""Seconds between its looks at the nodes: the least that it takes."""


def metrics_server() -> Path:
    """The program, built first where it is not cached; raises CannotBuild."""
    digest = hashlib.sha256((SOURCES / "go.sum").read_bytes() + repr(ENVIRONMENT).encode()).hexdigest()[:16]
    target = cache_folder() / f"metrics-server-{digest}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(target)
    return target


def _build(target: Path) -> None:
    fresh = target.with_suffix(".new")
    sys.stderr.write("testbed: building metrics-server, once (about four minutes on two cores)\n")
    sys.stderr.flush()
    try:
        answer = subprocess.run(
            [go(), "build", "-ldflags", "-s -w", "-o", fresh, PACKAGE],
            cwd=SOURCES,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"the build of metrics-server did not end within {BUILD_SECONDS:.0f} s") from error
    if answer.returncode != 0:
        last = "\n".join(answer.stderr.splitlines()[-20:])
        raise (CannotBuild if NO_NETWORK.search(last) else BuildFailed)(f"metrics-server cannot be built:\n{last}")
    shutil.move(fresh, target)


@contextmanager
def serving_metrics(area: Area, plane: ControlPlane) -> Iterator[None]:
    """metrics-server until the end of the block, as an administrator; it looks at every node's kubelet."""
    port = free_port()
    kubeconfigs = [f"--{name}kubeconfig={plane.kubeconfig}" for name in ("", "authentication-", "authorization-")]
    running = area.program(
        "metrics-server",
        [
            metrics_server(),
            *kubeconfigs,
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={area.path / 'metrics-server'}",
            "--kubelet-insecure-tls",
            "--kubelet-use-node-status-port",
            "--kubelet-preferred-address-types=InternalIP",
            f"--metric-resolution={RESOLUTION}s",
            f"--kubelet-request-timeout={RESOLUTION // 2}s",
        ],
    )
    running.start()
    try:
        with registered(plane, port):
            running.wait_until(lambda: available(plane), "metrics-server to be ready", START_SECONDS)
            yield
    finally:
        running.stop()


def available(plane: ControlPlane) -> bool:
    """Whether the API server thinks well of the server behind the API."""
    item = json.loads(plane.kubectl("get", "apiservice", API, "-o", "json"))
    told = item.get("status", {}).get("conditions", [])
    return any(one["type"] == "Available" and one["status"] == "True" for one in told)


@contextmanager
def registered(plane: ControlPlane, port: int) -> Iterator[None]:
    """The API metrics.k8s.io, served by who listens on a port of this machine, until the end of the block."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "metrics-server", "namespace": NAMESPACE},
        # The API server reaches a Service of this type by that name, where others need a proxy for addresses.
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    where = {"name": "metrics-server", "namespace": NAMESPACE, "port": port}
    offered: dict[str, Any] = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": API},
        # As in metrics-server's own manifest.
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": where,
        },
    }
    plane.kubectl(
        "apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, offered]})
    )
    try:
        yield
    finally:
        plane.kubectl("delete", "apiservice", API)
