"""One virtual node as the API server sees it: registered, leased, and with its pods watched, admitted and written."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from testbed.virtual_api import BROKEN, MERGE, STRATEGIC, Api, ApiRefused
from testbed.virtual_containers import Containers, Kill
from testbed.virtual_habits import Event, Habits, Now
from testbed.virtual_metrics import ContainerSample
from testbed.virtual_pods import VirtualPod
from testbed.virtual_resources import Room, memory_limit, misfit

Object = dict[str, Any]

RETRY_SECONDS = 0.5
LEASE_SECONDS = 40
RENEW_SECONDS = 10.0
SIDECAR_BYTES = 32 * 2**20
"""What a container that is not in the model is said to use."""

NOT_FOUND, CONFLICT, GONE = 404, 409, 410


@dataclass(frozen=True, slots=True)
class Size:
    """What a node has."""

    memory: int
    """Bytes."""
    cores: float
    pods: int = 110

    @property
    def room(self) -> Room:
        """All of it is allocatable."""
        return Room(self.memory, round(self.cores * 1000), self.pods)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a node is, but for its name and the model."""

    size: Size
    habits: Habits
    namespace: str
    """Pods of other namespaces run, but are not in the model."""
    components: frozenset[str]
    """Airflow components that the model knows."""
    taints: Sequence[Object]
    block: int
    """The second number of its pods' addresses."""


class VirtualKubelet:
    """Plays the node `name` until its task is cancelled. It lives in one event loop and has no thread of its own."""

    def __init__(
        self,
        name: str,
        api: Api,
        model: Containers,
        settings: Settings,
        clock: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self.name = name
        self.pods: dict[str, VirtualPod] = {}
        """By uid, as long as the API server has them."""
        self.registered = asyncio.Event()
        self._api = api
        self._model = model
        self._settings = settings
        self._clock = clock
        self._tell = tell
        self._addresses = 0
        self._born = _written(datetime.now(UTC))
        self._writers: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, float] = {}  # pods whose resize waits for room, and since when

    async def run(self) -> None:
        """Register, then keep the lease and follow the pods, through outages of the API server."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_lease())
            tasks.create_task(self._follow())

    async def leave(self) -> None:
        """Take the Node and its Lease away, and end all writing."""
        for writer in self._writers.values():
            writer.cancel()
        for path in (f"/api/v1/nodes/{self.name}", self._lease_path):
            with contextlib.suppress(ApiRefused, *BROKEN):
                await self._api.call("DELETE", path)

    def killed(self, kill: Kill) -> bool:
        """The kernel has killed in the container of that name; whether it is one of this node's."""
        pod = next((each for each in self.pods.values() if each.alive and each.name == kill.name), None)
        if pod is not None and kill.whole:
            pod.killed(self._now())
        return pod is not None

    def step(self) -> None:
        """Do what is due by now, for every pod."""
        now = self._now()
        for pod in self.pods.values():
            pod.step(now)
        self._grant()
        for pod in self.pods.values():
            self._write(pod)

    def containers(self) -> Iterator[ContainerSample]:
        """What cAdvisor would see in every container that runs."""
        for pod in self.pods.values():
            for record in pod.records:
                if record.running_since is None:
                    continue
                look = self._model.reading(pod.name) if record is pod.main and pod.alive else None
                limited = look is not None and look.cfs_periods > 0
                yield ContainerSample(
                    pod.namespace,
                    pod.name,
                    pod.uid,
                    record.name,
                    record.id,
                    record.image,
                    rss=look.rss if look else SIDECAR_BYTES,
                    cache=look.cache if look else 0,
                    working_set=look.working_set if look else SIDECAR_BYTES,
                    usage=look.usage if look else SIDECAR_BYTES,
                    peak=look.peak if look else SIDECAR_BYTES,
                    cpu_seconds=look.cpu_seconds if look else 0,
                    process_kills=look.process_kills if look else 0,
                    limit=memory_limit(record.in_force) or 0,
                    started=datetime.fromisoformat(record.running_since).timestamp(),
                    periods=look.cfs_periods if look and limited else None,
                    throttled_periods=look.cfs_throttled_periods if look and limited else None,
                )

    def _now(self) -> Now:
        return Now(self._clock(), _written(datetime.now(UTC)))

    # Its pods, as the API server tells of them.

    async def _follow(self) -> None:
        query = {"fieldSelector": f"spec.nodeName={self.name}"}
        while True:
            try:
                await self.registered.wait()
                await self._list_and_watch(query)
            except (ApiRefused, *BROKEN) as error:
                self._tell(f"the pods are out of sight: {error!r}")
                await asyncio.sleep(RETRY_SECONDS)

    async def _list_and_watch(self, query: Mapping[str, str]) -> None:
        """Take in what is there, then every change, until the API server ends the watch."""
        found = await self._api.list("/api/v1/pods", query)
        there = {item["metadata"]["uid"] for item in found.get("items") or []}
        for uid in set(self.pods) - there:
            self._gone(uid)
        for item in found.get("items") or []:
            self._seen(item)
        async for event in self._api.watch("/api/v1/pods", query, found["metadata"]["resourceVersion"]):
            if event["type"] == "ERROR":
                return
            if event["type"] == "DELETED":
                self._gone(event["object"]["metadata"]["uid"])
            else:
                self._seen(event["object"])

    def _seen(self, item: Object) -> None:
        uid, now = item["metadata"]["uid"], self._now()
        pod = self.pods.get(uid)
        if pod is None:
            pod = self._taken_in(item, now)
        elif int(item["metadata"]["resourceVersion"]) < int(pod.item["metadata"]["resourceVersion"]):
            return
        else:
            pod.update(item, now)
        self._grant()
        self._write(pod)

    def _taken_in(self, item: Object, now: Now) -> VirtualPod:
        wanted = (item["metadata"].get("labels") or {}).get("component")
        known = wanted in self._settings.components and item["metadata"]["namespace"] == self._settings.namespace
        self._addresses += 1
        address = f"10.{self._settings.block}.{self._addresses // 250}.{self._addresses % 250 + 1}"
        pod = VirtualPod(item, self._model, wanted if known else None, self._settings.habits, address)
        if (item.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
            pod.over = True  # it had ended before this node came up
        else:
            pod.admit(misfit(pod.asked, self._used(), self._settings.size.room), now)
        pod.update(item, now)
        self.pods[pod.uid] = pod
        return pod

    def _gone(self, uid: str) -> None:
        if (pod := self.pods.pop(uid, None)) is not None:
            pod.forget()
        self._waiting.pop(uid, None)
        self._grant()

    def _used(self, but: VirtualPod | None = None) -> Room:
        return sum((pod.used for pod in self.pods.values() if pod is not but and not pod.over), Room())

    def _grant(self) -> None:
        """Give room to resizes: those that ask for no more first, then by priority, QoS and the time they wait."""
        now = self._now()
        for uid in list(self._waiting):
            if uid not in self.pods or not self.pods[uid].resizing:
                del self._waiting[uid]
        for pod in self.pods.values():
            if pod.resizing:
                self._waiting.setdefault(pod.uid, now.seconds)
            else:
                pod.withdraw()
        for pod in sorted((self.pods[uid] for uid in self._waiting), key=self._turn):
            why_not = misfit(pod.asked, self._used(but=pod), self._settings.size.room)
            pod.grant(why_not, now)
            if why_not is None:
                del self._waiting[pod.uid]
            self._write(pod)

    def _turn(self, pod: VirtualPod) -> tuple[bool, int, bool, float]:
        more = pod.asked.memory > pod.used.memory or pod.asked.millicores > pod.used.millicores
        guaranteed = (pod.item.get("status") or {}).get("qosClass") == "Guaranteed"
        return more, -int(pod.spec.get("priority") or 0), not guaranteed, self._waiting[pod.uid]

    # What it writes.

    def _write(self, pod: VirtualPod) -> None:
        ended = pod.over and bool(pod.item["metadata"].get("deletionTimestamp"))
        writer = self._writers.get(pod.uid)
        if (pod.statuses or pod.events or ended) and (writer is None or writer.done()):
            self._writers[pod.uid] = asyncio.get_running_loop().create_task(self._written_out(pod))

    async def _written_out(self, pod: VirtualPod) -> None:
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        while pod.uid in self.pods and (pod.statuses or pod.events):
            try:
                while pod.statuses:
                    await self._api.call("PATCH", f"{path}/status", _patch(pod), STRATEGIC)
                    del pod.statuses[0]
                while pod.events:
                    await self._api.call("POST", _event_path(pod), self._event(pod, pod.events[0]))
                    del pod.events[0]
            except ApiRefused as refused:
                if refused.status in {NOT_FOUND, CONFLICT}:  # gone, or another one of the name
                    return
                self._tell(f"{path} was not written: {refused}")
                del (pod.statuses or pod.events)[0]
            except BROKEN:
                del pod.statuses[:-1]  # what was in between is history when the API server is back
                await asyncio.sleep(RETRY_SECONDS)
        if pod.over and pod.item["metadata"].get("deletionTimestamp"):
            await self._deleted(pod, path)

    async def _deleted(self, pod: VirtualPod, path: str) -> None:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
        with contextlib.suppress(ApiRefused, *BROKEN):  # it is tried again with the next step
            await self._api.call("DELETE", path, body)
            self._gone(pod.uid)

    def _event(self, pod: VirtualPod, event: Event) -> Object:
        now = _written(datetime.now(UTC))
        return {
            "apiVersion": "v1",
            "kind": "Event",
            # As a real kubelet names them: a list of them is in the order of their birth.
            "metadata": {"name": f"{pod.name}.{time.time_ns():x}", "namespace": pod.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod.name,
                "namespace": pod.namespace,
                "uid": pod.uid,
            },
            "type": event.kind,
            "reason": event.reason,
            "message": event.message[:1024],
            "source": {"component": "kubelet", "host": self.name},
            "reportingComponent": "kubelet",
            "reportingInstance": self.name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }

    # The node itself.

    async def _keep_lease(self) -> None:
        while True:
            try:
                if not self.registered.is_set():
                    await self._register()
                await self._renew()
                await self._report()
                self.registered.set()
                await asyncio.sleep(RENEW_SECONDS)
            except (ApiRefused, *BROKEN) as error:
                self._tell(f"the lease was not renewed: {error!r}")
                await asyncio.sleep(RETRY_SECONDS)

    async def _register(self) -> None:
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"taints": list(self._settings.taints)},
        }
        try:
            await self._api.call("POST", "/api/v1/nodes", body)
        except ApiRefused as refused:
            if refused.status != CONFLICT:
                raise

    async def _report(self) -> None:
        """Say that it is Ready, and what it has: after an outage the control plane takes it for lost."""
        size = self._settings.size
        amounts = {"cpu": f"{round(size.cores * 1000)}m", "memory": str(size.memory), "pods": str(size.pods)}
        now = _written(datetime.now(UTC))
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "a virtual kubelet is posting ready status",
            "lastHeartbeatTime": now,
            "lastTransitionTime": self._born,
        }
        status = {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": self.name}],
            "nodeInfo": _node_info(),
        }
        await self._api.call("PATCH", f"/api/v1/nodes/{self.name}/status", {"status": status}, STRATEGIC)

    async def _renew(self) -> None:
        spec = {
            "holderIdentity": self.name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        try:
            await self._api.call("PATCH", self._lease_path, {"spec": spec}, MERGE)
        except ApiRefused as refused:
            if refused.status != NOT_FOUND:
                raise
            folder, _, _ = self._lease_path.rpartition("/")
            kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name}}
            await self._api.call("POST", folder, {**kind, "spec": spec})

    @property
    def _lease_path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}"


def _patch(pod: VirtualPod) -> Object:
    """The oldest unwritten status as a strategic merge: resize conditions that it has no more are taken away."""
    status = pod.statuses[0]
    if "conditions" not in status:
        return {"metadata": {"uid": pod.uid}, "status": status}
    there = {each["type"] for each in status["conditions"]}
    ended = [{"type": kind, "$patch": "delete"} for kind in ("PodResizePending", "PodResizeInProgress")]
    gone = [each for each in ended if each["type"] not in there]
    return {"metadata": {"uid": pod.uid}, "status": {**status, "conditions": [*status["conditions"], *gone]}}


def _event_path(pod: VirtualPod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/events"


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _node_info() -> Object:
    names = ("machineID", "systemUUID", "bootID", "kernelVersion", "kubeProxyVersion")
    return {
        **dict.fromkeys(names, "virtual"),
        "osImage": "virtual",
        "containerRuntimeVersion": "virtual://1",
        "kubeletVersion": "v1.36.3",
        "operatingSystem": "linux",
        "architecture": "amd64",
    }
