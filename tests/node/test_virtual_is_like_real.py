"""One story, played on a real node and on a virtual one: a watch of its pods shows the same on both."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from testbed.cgroups import oom_kills
from testbed.controlplane import ControlPlane
from testbed.images import HOST_ROOT, host_folders
from testbed.node import Node
from testbed.node_remains import hierarchies
from testbed.pod_history import Look, PodHistory
from testbed.processes import Area
from testbed.virtual_eaters import MEBIBYTE, Eaters
from testbed.virtual_habits import Habits
from testbed.virtual_node import VirtualNode
from testbed.virtual_resources import amount

Object = dict[str, Any]
History = list[tuple[Look, Object]]

WAIT_SECONDS = 90.0

KNOWN = {
    "volumeMounts": "pods of a virtual node mount nothing",
    "PodReadyToStartContainers": "the sandbox of a virtual pod is there at the same moment as its containers",
}
"""What differs between the nodes, and why that does no harm: nobody who tunes memory reads it."""

LONGEST_BACK_OFF = 10.0  # as the real node is set

# Holds as many MiB as /tmp/eat says, itself; once, for /tmp/child, in a child.
EATER = """\
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
eat, child, eaten = map(pathlib.Path, ("/tmp/eat", "/tmp/child", "/tmp/eaten"))
held = b""
while True:
    if child.exists():
        size = int(child.read_text())
        child.unlink()
        subprocess.run([sys.executable, "-c", f"b'x' * ({size} << 20)"])
    wanted = int((eat.read_text() if eat.exists() else "").strip() or 0) << 20
    if len(held) != wanted:
        held = b"x" * wanted
        eaten.write_text(str(wanted >> 20))
    time.sleep(0.05)
"""


class Stage(Protocol):
    """A node to play on."""

    control_plane: ControlPlane

    def spec(self) -> Object:
        """The spec of an eater's pod, without resources."""

    def eat(self, name: str, mebibytes: int) -> None:
        """The eater holds so much, unless that kills it."""

    def kill_child(self, name: str) -> None:
        """A child of the eater passes the limit, and is killed."""


@dataclass
class RealStage:
    """The real node: the eater is a Python program."""

    control_plane: ControlPlane

    def spec(self) -> Object:
        """With the machine's own Python."""
        folders = list(host_folders())
        if not Path(sys.base_prefix).is_relative_to("/usr"):
            folders.append(sys.base_prefix)
        container = {
            "name": "app",
            "image": HOST_ROOT,
            "imagePullPolicy": "Never",
            "args": [str(Path(sys.executable).resolve()), "-c", EATER],
            "volumeMounts": [
                {"name": f"v{number}", "mountPath": folder, "readOnly": True} for number, folder in enumerate(folders)
            ],
        }
        volumes = [{"name": f"v{number}", "hostPath": {"path": folder}} for number, folder in enumerate(folders)]
        return {"containers": [container], "volumes": volumes}

    def eat(self, name: str, mebibytes: int) -> None:
        """Tell it, and wait until it has eaten or is dead."""
        before = Look.at(pod(self, name))

        def eaten() -> bool:
            dead = Look.at(pod(self, name)) != before
            return dead or self._sh(name, "cat /tmp/eaten").strip() == str(mebibytes)

        self._sh(name, f"echo {mebibytes} > /tmp/eat")
        until(eaten, "it ate")

    def kill_child(self, name: str) -> None:
        """Tell it, and ask the kernel."""
        identity = pod(self, name)["status"]["containerStatuses"][0]["containerID"]
        self._sh(name, "echo 300 > /tmp/child")
        until(lambda: oom_kills(identity) == 1, "the kill")

    def _sh(self, name: str, command: str) -> str:
        return self.control_plane.kubectl("exec", name, "--", "sh", "-c", command, check=False)


@dataclass
class VirtualStage:
    """The virtual node: the eater is a model."""

    control_plane: ControlPlane
    node: VirtualNode
    eaters: Eaters

    def spec(self) -> Object:
        """With an image that nobody has."""
        return {"containers": [{"name": "app", "image": "eater:none"}]}

    def eat(self, name: str, mebibytes: int) -> None:
        """It has eaten at once."""
        self.node.ask(lambda: self.eaters.eat(name, mebibytes))

    def kill_child(self, name: str) -> None:
        """A child that passes the limit."""
        self.node.ask(lambda: self.eaters.eat_in_child(name, 300))
        until(lambda: self.eaters.living[name].process_kills == 1, "the kill")


def test_a_virtual_node_shows_what_a_real_one_shows(machine: None, needs: Callable[..., None], tmp_path: Path) -> None:
    del machine
    needs("control-plane", "kubelet", "pause")
    area = Area("like-real")
    try:
        plane = ControlPlane(area, extra_addresses=[Node.address], node=Node.name)
        real_node = Node(area, plane).prepare()
        try:
            with plane:
                real_node.start()
                real = play(RealStage(plane), tmp_path / "real")
                real_node.stop()
                plane.kubectl("delete", "node", Node.name)
                virtual = virtually(area, plane, tmp_path / "virtual")
        finally:
            real_node.stop()
    finally:
        area.clean()
    for name, history in real.items():
        assert looks(virtual[name]) == looks(history), f"\nreal {lines(history)}\nvirtual {lines(virtual[name])}"
        for (look, on_virtual), (_, on_real) in zip(virtual[name], history, strict=True):
            assert shape(on_virtual) == shape(on_real), look


def virtually(area: Area, plane: ControlPlane, path: Path) -> dict[str, History]:
    """The story on a virtual node."""
    eaters = Eaters()
    habits = Habits(longest_back_off=LONGEST_BACK_OFF)
    with VirtualNode(area, plane, eaters, namespace="default", habits=habits) as node:
        return play(VirtualStage(plane, node, eaters), path)


def play(stage: Stage, folder: Path) -> dict[str, History]:
    """The whole story; what a watch showed, by pod."""
    folder.mkdir()
    return {
        "eater": played(stage, "eater", folder, eats_and_dies),
        "renewed": played(stage, "renewed", folder, is_renewed),
        "waits": played(stage, "waits", folder, waits_for_room),
    }


def played(stage: Stage, name: str, folder: Path, story: Callable[[Stage, str], None]) -> History:
    with PodHistory(stage.control_plane, name, folder / name) as history:
        story(stage, name)
        stage.control_plane.kubectl("delete", "pod", name, timeout=90)
        return history.versions()


def eats_and_dies(stage: Stage, name: str) -> None:
    """Raised, lowered, lowered too far; a child killed, the whole killed, and again."""
    create(stage, name, {})
    for limit in (200, 120):
        resize(stage, name, limit)
        until(lambda: in_force(stage, name, limit), f"{limit} MiB")  # noqa: B023 - used at once
    stage.eat(name, 70)
    resize(stage, name, 60)
    until(lambda: "PodResizeInProgress Error" in Look.at(pod(stage, name)).resize, "the error")
    resize(stage, name, 130)
    until(lambda: in_force(stage, name, 130), "130 MiB")
    stage.eat(name, 0)
    if any(hierarchy.name == "memory" for hierarchy in hierarchies()):  # cgroup v2 kills the whole container
        stage.kill_child(name)
    for restarts in (1, 2):
        stage.eat(name, 300)
        until(lambda: comes_back(stage, name, restarts), f"restart {restarts}")  # noqa: B023 - used at once


def is_renewed(stage: Stage, name: str) -> None:
    """Resized with a restart."""
    create(stage, name, {"resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]})
    resize(stage, name, 150)
    until(lambda: in_force(stage, name, 150), "150 MiB")


def waits_for_room(stage: Stage, name: str) -> None:
    """Asks for more than the node has, until another pod goes."""
    create(stage, name, {})
    path = "--output=jsonpath={.items[0].status.allocatable.memory}"
    free = amount(stage.control_plane.kubectl("get", "nodes", path)) // MEBIBYTE - 50
    create(stage, "filler", {"resources": memory(free - 100, free - 100)})
    resize(stage, name, 200, request=200)
    until(lambda: "PodResizePending Deferred" in Look.at(pod(stage, name)).resize, "the delay")
    stage.control_plane.kubectl("delete", "pod", "filler", timeout=90)
    until(lambda: in_force(stage, name, 200), "room")


def create(stage: Stage, name: str, container: Object) -> None:
    spec = stage.spec()
    spec["containers"][0] |= {"resources": memory(120), **container}
    metadata = {"name": name, "labels": {"component": "worker"}}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    stage.control_plane.kubectl("create", "--filename=-", input=json.dumps(body))
    until(lambda: running(stage, name), "the pod")


def resize(stage: Stage, name: str, limit: int, request: int = 50) -> None:
    body = json.dumps({"spec": {"containers": [{"name": "app", "resources": memory(limit, request)}]}})
    stage.control_plane.kubectl("patch", "pod", name, "--subresource=resize", "--patch", body)


def memory(limit: int, request: int = 50) -> Object:
    return {"requests": {"memory": f"{request}Mi"}, "limits": {"memory": f"{limit}Mi"}}


def pod(stage: Stage, name: str) -> Object:
    found: Object = json.loads(stage.control_plane.kubectl("get", "pod", name, "--output=json"))
    return found


def running(stage: Stage, name: str) -> bool:
    return Look.at(pod(stage, name)).state == "running"


def in_force(stage: Stage, name: str, limit: int) -> bool:
    look = Look.at(pod(stage, name))
    return (look.state, look.resize, look.limit) == ("running", (), f"{limit}Mi")


def comes_back(stage: Stage, name: str, restarts: int) -> bool:
    look = Look.at(pod(stage, name))
    return (look.state, look.restarts) == ("running", restarts)


def until(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not check():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS:g} s in vain: {what}"
        time.sleep(0.2)


def looks(history: History) -> list[Look]:
    return [look for look, _ in history]


def shape(item: Object) -> Object:
    """The fields that are there, and the conditions, but for what is known to differ and does no harm."""
    status = item["status"]
    (container,) = status.get("containerStatuses") or [{}]
    return {
        "fields": set(status) - set(KNOWN),
        "container": set(container) - set(KNOWN),
        "conditions": {
            (each["type"], each["status"], each.get("reason"), each.get("observedGeneration"))
            for each in status.get("conditions") or []
            if each["type"] not in KNOWN
        },
    }


def lines(history: History) -> str:
    return "\n  ".join(str(look) for look in looks(history))
