"""How a virtual pod's containers and conditions read in the API, as a real kubelet writes them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

IMAGE_DIGEST = "sha256:" + "0" * 64
KILLED = 137


@dataclass(slots=True)
class ContainerRecord:
    """What a kubelet knows of one container of a pod. Times are as the API writes them."""

    uid: str
    name: str
    image: str
    allocated: Object
    """Resources that the node has granted."""
    in_force: Object
    """Resources that the kernel knows."""
    restarts: int = 0
    running_since: str | None = None
    dead: Object | None = None
    """The body of a terminated state, from the death until the next start."""
    last: Object | None = None
    """That of the life before."""
    waiting: Object = field(default_factory=lambda: {"reason": "ContainerCreating"})

    @property
    def id(self) -> str:
        """Another one for each life, as a container runtime gives it."""
        return hashlib.sha256(f"{self.uid}/{self.name}/{self.restarts}".encode()).hexdigest()

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.running_since is not None

    def start(self, now: str) -> None:
        """It runs, for the first time or again, with what was granted to it."""
        if self.dead is not None:
            self.last, self.dead = self.dead, None
            self.restarts += 1
        self.in_force = self.allocated
        self.running_since = now

    def end(self, now: str, exit_code: int, reason: str) -> None:
        """It runs no more."""
        self.dead = {
            "exitCode": exit_code,
            "reason": reason,
            "startedAt": self.running_since or now,
            "finishedAt": now,
            "containerID": f"containerd://{self.id}",
        }
        self.running_since = None
        self.waiting = {}

    def status(self) -> Object:
        """Its entry in the pod's status."""
        born = self.running or self.dead is not None
        if self.running:
            state: Object = {"running": {"startedAt": self.running_since}}
            last = self.last
        elif self.waiting:
            state, last = {"waiting": self.waiting}, self.dead
        else:
            state, last = {"terminated": self.dead}, self.last
        resources = {
            "allocatedResources": self.allocated.get("requests") or {},
            "resources": self.in_force,
            "imageID": IMAGE_DIGEST,
            "containerID": f"containerd://{self.id}",
        }
        return {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "ready": self.running,
            "started": self.running,
            "restartCount": self.restarts,
            "state": state,
            "lastState": {"terminated": last} if last else {},
            **(resources if born else {}),
        }


def init_statuses(spec: Object, uid: str, started: str | None) -> Object:
    """Init containers are passed over: done at the moment the pod starts; sidecars run from then on."""
    statuses = []
    for container in spec.get("initContainers") or []:
        resources = container.get("resources") or {}
        record = ContainerRecord(uid, container["name"], container["image"], resources, resources)
        if started is not None:
            record.start(started)
            if container.get("restartPolicy") != "Always":
                record.end(started, 0, "Completed")
        status = record.status()
        statuses.append({**status, "ready": started is not None})
    return {"initContainerStatuses": statuses} if statuses else {}


def conditions(
    records: Sequence[ContainerRecord], phase: str, *, sandbox: bool, init: bool, generation: int
) -> list[Object]:
    """The conditions every pod has from its kubelet, but those of a resize."""
    unready = [record.name for record in records if not record.running]
    reason, message = "", ""
    initialized = "" if init else "ContainersNotInitialized"
    if phase == "Succeeded":
        reason = initialized = "PodCompleted"
    elif phase == "Failed":
        reason = "PodFailed"
    elif unready:
        reason, message = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    ready = _truth(not unready and phase == "Running")
    return [
        condition("PodScheduled", "True", generation),
        condition("PodReadyToStartContainers", _truth(sandbox), generation),
        condition("Initialized", _truth(init), generation, initialized),
        condition("Ready", ready, generation, reason, message),
        condition("ContainersReady", ready, generation, reason, message),
    ]


def condition(kind: str, status: str, generation: int, reason: str = "", message: str = "") -> Object:
    """One condition, without its times."""
    return {"type": kind, "status": status, "observedGeneration": generation, "reason": reason, "message": message}


def timed(new: Iterable[Object], old: Mapping[str, Object], now: str) -> list[Object]:
    """The conditions with the moment at which each came to be as it is; `old` by type."""
    result = []
    for each in new:
        before = old.get(each["type"])
        since = before["lastTransitionTime"] if before and before["status"] == each["status"] else now
        probed = now if each["type"].startswith("PodResize") else None
        result.append({**each, "lastProbeTime": probed, "lastTransitionTime": since})
    return result


def _truth(value: bool) -> str:
    return "True" if value else "False"
