"""A run that is killed cannot clean up; whoever comes next does it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import node_remains
from testbed.node import sweep
from testbed.processes import Area

START_SECONDS = 120

# A node with one pod, until it is killed. A run in the background of a shell is born with SIGINT ignored.
RUN = """\
import json, signal, time

signal.signal(signal.SIGINT, signal.default_int_handler)
from testbed.controlplane import ControlPlane
from testbed.node import Node
from testbed.processes import Area

area = Area("killed")
plane = ControlPlane(area, extra_addresses=[Node.address], node=Node.name)
with plane, Node(area, plane):
    container = {
        "name": "sleep", "image": "hostroot:local", "imagePullPolicy": "Never", "args": ["/usr/bin/sleep", "600"],
        "volumeMounts": [{"name": "usr", "mountPath": "/usr"}],
    }
    volumes = [{"name": "usr", "hostPath": {"path": "/usr"}}]
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sleeper"},
        "spec": {"containers": [container], "volumes": volumes},
    }
    plane.kubectl("create", "--filename=-", input=json.dumps(pod))
    plane.kubectl("wait", "pod/sleeper", "--for=condition=Ready", "--timeout=60s", timeout=90)
    print("running", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_nothing_of_a_node_stays_on_the_machine(machine: None, needs: Callable[..., None], how: signal.Signals) -> None:
    del machine
    needs("control-plane", "kubelet", "pause")
    Area.sweep()
    sweep(wait=True)
    before = _machine()
    run = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    try:
        assert run.stdout is not None
        said = ""
        for line in run.stdout:
            said += line
            if line == "running\n":
                break
        else:
            pytest.fail(said)
        assert "containerd-shim" in str(_machine())
        run.send_signal(how)
        run.wait(60)
    finally:
        run.kill()
        run.communicate()

    if how == signal.SIGKILL:
        assert "containerd-shim" in str(_machine())
        (told,) = sweep()
        assert "processes of containers" in told
    Area.sweep()
    assert sweep() == []
    assert _machine() == before


def _machine() -> dict[str, object]:
    """Return what a node changes on its machine."""
    mounts = Path("/proc/self/mounts").read_text()
    links = json.loads(subprocess.run(["ip", "-json", "address"], capture_output=True, check=True).stdout)
    processes = subprocess.run(["ps", "-e", "-o", "args"], capture_output=True, text=True, check=True).stdout
    return {
        "mounts": mounts.count("\n"),
        "addresses": sorted(address["local"] for link in links for address in link["addr_info"]),
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{node_remains.CGROUP_ROOT}")],
        "home": node_remains.HOME.exists(),
        "folders": [
            Path(path).exists() for path in ("/run/mount", "/run/containerd", "/var/lib/cni", "/var/lib/kubelet")
        ],
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "processes": {
            name
            for name in ("containerd-shim", "kubelet", "containerd", "pause")
            if any(line.split("/")[-1].startswith(name) for line in _commands(processes))
        },
    }


def _commands(processes: str) -> list[str]:
    return [line.split()[0] for line in processes.splitlines() if line.split()]
