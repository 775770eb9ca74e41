"""A real Kubernetes node on this machine: kubelet, containerd and runc in a mount namespace of their own."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from testbed import images, node_remains
from testbed.containerd import Containerd
from testbed.controlplane import ControlPlane
from testbed.node_remains import ADDRESS, CGROUP_ROOT, HOME
from testbed.processes import Area, Program, ProgramFailed, Startable, free_port
from testbed.programs import program
from testbed.services import postgresql_programs

READY_SECONDS = 60.0
OTHER_NODE_SECONDS = 900.0
CNI_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
COMMANDS = ("containerd", "ctr", "runc", "nsenter", "unshare", "ip", "setpriv", "redis-server", "redis-cli")

# Folders that mount, kubelet, containerd and CNI plugins write to wherever they run; here they get a private one.
_PRIVATE_FOLDERS = (
    Path("/run/mount"),
    Path("/run/containerd"),
    Path("/var/lib/cni"),
    Path("/var/lib/kubelet"),
    Path("/var/log"),
)
# Kernel settings that the kubelet and the ptp plugin insist on writing; they write to plain files instead.
_KERNEL_SETTINGS = (
    Path("/proc/sys/kernel/panic"),
    Path("/proc/sys/kernel/panic_on_oops"),
    Path("/proc/sys/kernel/keys/root_maxkeys"),
    Path("/proc/sys/kernel/keys/root_maxbytes"),
    Path("/proc/sys/vm/overcommit_memory"),
    Path("/proc/sys/vm/panic_on_oom"),
    Path("/proc/sys/net/ipv4/ip_forward"),
)


def what_is_missing() -> str | None:
    """Return one sentence that says why this machine cannot be a real node, or None."""
    if sys.platform != "linux":
        return "The real node needs Linux; this machine runs another system."
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if _cni_plugins() is None:
        missing.append("the CNI plugins")
    if postgresql_programs() is None:
        missing.append("PostgreSQL's server")
    if missing:
        return f"The real node needs {', '.join(missing)}: run `sudo make system`."
    if os.geteuid() != 0:
        return "The real node needs root (mounts, cgroups, network): run the same command with sudo."
    if not _may_mount():
        return (
            "The real node needs to mount and to make cgroups, and here not even root may: run it outside a container."
        )
    if device := node_remains.device_with_address():
        return f"The real node needs the address {ADDRESS}, which the device {device} of this machine has."
    return None


def sweep(*, wait: bool = False) -> list[str]:
    """Remove what a killed run's node left, and say so in one sentence when there was something.

    Does nothing while a node lives, or waits for its end.
    """
    if what_is_missing() is not None:
        return []
    lock = _wait_for_lock() if wait else _take_lock()
    if lock is None:
        return []
    with lock:
        told = node_remains.remove()
    return [f"Removed what a dead real node left: {', '.join(told)}."] if told else []


class Node(Startable):
    """The node `name` of a control plane; as a context manager it starts and leaves nothing behind.

    One per machine at a time: it owns the address 10.88.0.1, the cgroup `airflow-tuner-node` and one folder in /tmp.
    Pods have host names and addresses of their own and reach servers of the machine at `address`; they do not reach
    each other, and there is neither DNS nor a proxy for Services.
    """

    name = "node"
    address = ADDRESS
    home = HOME

    def __init__(self, area: Area, control_plane: ControlPlane) -> None:
        self.control_plane = control_plane
        self.kubelet_port = free_port()
        self.area = area
        self._lock: socket.socket | None = None
        self._programs: list[Program] = []
        self._runtime: Containerd | None = None

    def prepare(self) -> Self:
        """Take the machine's one node and its address, before anything listens there; waits while another node lives.

        Raises ProgramFailed where this machine cannot be a node, and when the other one lives on.
        """
        if self._lock is not None:
            return self
        if missing := what_is_missing():
            raise ProgramFailed(missing)
        self._lock = _wait_for_lock()
        node_remains.remove()
        node_remains.make_home()
        node_remains.add_address()
        node_remains.make_cgroups()
        return self

    def start(self) -> Self:
        """Start containerd and the kubelet; return when the node is Ready."""
        try:
            self.prepare()
            inside = self._start_namespace()
            runtime = self._start_containerd(inside)
            kubelet = self.area.program("kubelet", self._kubelet_command(runtime.socket), inside=inside)
            self._programs.append(kubelet.start())
            kubelet.wait_until(self.ready, "the node to be Ready", READY_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kill the kubelet first, so that it restarts nothing, then containers and containerd; remove every trace."""
        for running in reversed(self._programs):
            running.kill()
        self._programs.clear()
        if self._lock is not None:
            node_remains.remove()
            self._lock.close()
            self._lock = None

    def ready(self) -> bool:
        """Whether the API server has a Ready node by our name."""
        path = '{.items[*].status.conditions[?(@.type=="Ready")].status}'
        return self.control_plane.kubectl("get", "nodes", f"--output=jsonpath={path}") == "True"

    def scrape_configs(self, interval: str = "5s") -> list[Mapping[str, Any]]:
        """Return the Prometheus scrape config of the kubelet's cAdvisor."""
        pki = self.control_plane.pki
        return [
            {
                "job_name": "kubelet-cadvisor",
                "scheme": "https",
                "metrics_path": "/metrics/cadvisor",
                "scrape_interval": interval,
                "tls_config": {
                    "cert_file": str(pki / "admin.crt"),
                    "key_file": str(pki / "admin.key"),
                    "insecure_skip_verify": True,  # the kubelet signs its serving certificate itself
                },
                "static_configs": [{"targets": [f"{self.address}:{self.kubelet_port}"], "labels": {"node": self.name}}],
            }
        ]

    def _start_namespace(self) -> int:
        """Start the process that holds the mount namespace and return its id."""
        node_remains.make_mount_points(_PRIVATE_FOLDERS)
        script = ["set -e"]
        for number, folder in enumerate(_PRIVATE_FOLDERS):
            private = self.home / "private" / str(number)
            private.mkdir(parents=True)
            script.append(f"mount --bind {private} {folder}")
        settings = self.home / "settings"
        settings.mkdir()
        for setting in _KERNEL_SETTINGS:
            if setting.exists():
                copy = settings / setting.name
                copy.write_text(setting.read_text())
                script.append(f"mount --bind {copy} {setting}")
        mounted = self.home / "mounted"
        script += [f"touch {mounted}", "exec sleep infinity"]
        holder = self.area.program(
            "mount-namespace", ["unshare", "--mount", "--propagation=private", "sh", "-c", "\n".join(script)]
        )
        self._programs.append(holder.start())
        holder.wait_until(mounted.exists, "the mounts of the node", READY_SECONDS)
        return holder.pid

    def _start_containerd(self, inside: int) -> Containerd:
        cni_plugins = _cni_plugins()
        if cni_plugins is None:
            raise ProgramFailed("the CNI plugins are gone")
        runtime = Containerd(self.area, self.home, cni_plugins=cni_plugins, pause_image=images.PAUSE, inside=inside)
        self._programs.append(runtime.program)
        runtime.start()
        runtime.import_image(images.pause_image(self.home / "pause.tar", program("pause")))
        runtime.import_image(images.host_root_image(self.home / "hostroot.tar"))
        self._runtime = runtime
        return runtime

    def import_image(self, archive: Path) -> None:
        """Load a docker-archive, so that pods can use it with `imagePullPolicy: Never`."""
        if self._runtime is None:
            raise ProgramFailed("the node was not started")
        self._runtime.import_image(archive)

    def _kubelet_command(self, containerd: Path) -> list[str | Path]:
        folder = self.home / "kubelet"
        config = self.home / "kubelet.json"
        config.write_text(json.dumps(self._kubelet_config(containerd, folder)))
        return [
            program("kubelet"),
            f"--config={config}",
            f"--kubeconfig={self.control_plane.pki / 'kubelet.kubeconfig'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--root-dir={folder}",
            f"--cert-dir={folder / 'pki'}",
            f"--containerd={containerd}",  # without it, /metrics/cadvisor has no containers
        ]

    def _kubelet_config(self, containerd: Path, folder: Path) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "port": self.kubelet_port,
            "readOnlyPort": 0,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self.control_plane.ca)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{containerd}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP_ROOT}",
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "clusterDomain": "cluster.local",
            "clusterDNS": [self.address],  # nobody answers there: names fail at once instead of leaving the machine
            "volumePluginDir": str(folder / "volume-plugins"),
            "crashLoopBackOff": {"maxContainerRestartPeriod": "10s"},
            "serializeImagePulls": False,
            "imageGCHighThresholdPercent": 100,  # an image that is collected could not be pulled again
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        }


def _take_lock() -> socket.socket | None:
    """Take the name that only one node of this machine can have; it goes with its process and leaves no file."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind("\0airflow-tuner-node")
    except OSError:
        lock.close()
        return None
    return lock


def _wait_for_lock() -> socket.socket:
    deadline = time.monotonic() + OTHER_NODE_SECONDS
    told = False
    while True:
        if lock := _take_lock():
            return lock
        if time.monotonic() > deadline:
            raise ProgramFailed("another real node runs on this machine, which has room for one at a time")
        if not told:
            sys.stderr.write("testbed: another real node runs on this machine; waiting for it to end\n")
            sys.stderr.flush()
            told = True
        time.sleep(1)


def _may_mount() -> bool:
    mounts = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
    return mounts and all(os.access(hierarchy, os.W_OK) for hierarchy in node_remains.hierarchies())


def _cni_plugins() -> Path | None:
    return next((folder for folder in CNI_PLUGINS if (folder / "ptp").exists()), None)
