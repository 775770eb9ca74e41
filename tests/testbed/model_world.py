"""An Airflow that is a model, in its own time: what a Prometheus would have scraped of it, and what its pods showed.

No I/O. Its controllers and kubelet do what real ones would: containers begin again, and pods roll.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_tuner import inventory
from airflow_tuner.fleet import Deployment, Laws
from airflow_tuner.model import Slots, Workload
from testbed.model_pods import MEBIBYTE, STATEFUL, PlayedPod, changed, shapes

START = datetime(2026, 11, 9, tzinfo=UTC).timestamp()
"""A Monday: the model's second 0."""

SCRAPE = 30.0
LOOK = 7.0
"""Seconds after a scrape at which is looked."""

NODE_CORES = 16
HOUR, DAY = 3600.0, 86400.0

Act = Callable[["World"], None]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the API server and the workers said at a moment, in seconds since the epoch."""

    at: float
    workloads: tuple[Workload, ...]
    slots: Mapping[str, Slots] | None
    """`None`: the workers are not asked."""


@dataclass
class World:
    """One modelled Airflow. `wanted` chooses Airflow's series by name: the others are not kept."""

    name: str
    seed: int
    wanted: Callable[[str], bool]
    line: str = "3"
    slots: int = 8
    workers: int = 2
    parallelism: int = 64
    group_kills: bool = False
    broker: bool = True
    stateful: bool = True
    pools: Mapping[str, int] = field(default_factory=dict)
    shaped: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What differs in the workloads' templates, by component."""
    laws: Laws | None = None
    lines: list[str] = field(default_factory=list, repr=False)
    """OpenMetrics."""
    seen: list[Seen] = field(default_factory=list, repr=False)
    silent: dict[str, float] = field(default_factory=dict)
    """Until when what is not scraped: "airflow" or "containers"."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed * 7919)  # noqa: S311 - a model, not a secret
        self.fleet = Deployment(
            self.seed,
            line=self.line,
            group_kills=self.group_kills,
            parallelism=self.parallelism,
            pools=self.pools,
            laws=self.laws,
        )
        self.shapes = shapes(self.line, slots=self.slots, workers=self.workers, stateful=self.stateful)
        for component, fields in self.shaped.items():
            self.shapes[component] = changed(self.shapes[component], **fields)
        self.pods: dict[str, PlayedPod] = {}
        self._agenda: list[tuple[float, int, Act]] = []
        self._count = itertools.count(1)
        self._node: dict[str, float] = {}
        self._node_before = 0.0
        self._prefixes: dict[tuple[str, ...], str] = {}
        for component in self.shapes:
            self._fill(component)
        self.fleet.files(24, 0.15)

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return START + self.fleet.now

    # What is to come.

    def after(self, seconds: float, act: Act) -> None:
        """Do something so much later."""
        heapq.heappush(self._agenda, (self.fleet.now + seconds, next(self._count), act))

    def every(self, seconds: float, act: Act, first: float = 0.0, jitter: float = 0.0) -> None:
        """Do something again and again, each time up to `jitter` seconds late."""

        def again(world: World) -> None:
            world.after(seconds, again)
            if jitter:
                world.after(world.rng.uniform(0, jitter), act)
            else:
                act(world)

        self.after(first, again)

    def run(self, seconds: float, look: float | None = None) -> None:
        """Let time pass, scraped every `SCRAPE` seconds; look every `look` seconds."""
        end = self.fleet.now + seconds
        while self.fleet.now < end - 1e-6:
            self._pass(LOOK)
            since = self.fleet.now - LOOK
            if look is not None and since % look < SCRAPE:
                self.seen.append(self._look())
            self._pass(SCRAPE - LOOK)
            self._scrape()

    def _pass(self, seconds: float) -> None:
        """Time passes, to the next act and on."""
        end = self.fleet.now + seconds
        while self._agenda and self._agenda[0][0] < end:
            due, _, act = heapq.heappop(self._agenda)
            self._advance(math.ceil(max(0.0, due - self.fleet.now) * 4) / 4)
            act(self)
        self._advance(end - self.fleet.now)
        self._keep()

    def _advance(self, seconds: float) -> None:
        if seconds <= 0:
            return
        for kill in self.fleet.advance(seconds):
            if kill.whole and kill.name in self.pods:
                self.pods[kill.name].die("OOMKilled", START + kill.at)

    # Its controllers and its kubelet.

    def _fill(self, component: str) -> None:
        """Start the pods that are missing."""
        shape = self.shapes[component]
        there = [pod for pod in self.of(component) if pod.evicted is None]
        for _ in range(shape.replicas - len([pod for pod in there if pod.deleted is None])):
            if shape.kind == STATEFUL:
                used = {pod.name for pod in there}
                free = [f"{shape.name}-{n}" for n in range(shape.replicas) if f"{shape.name}-{n}" not in used]
                if not free:
                    return
                self._born(free[0], component)
                there = [pod for pod in self.of(component) if pod.evicted is None]
            else:
                self._born(f"{shape.name}-1-{self.seed % 89}{next(self._count)}", component)

    def _born(self, name: str, component: str) -> None:
        pod = PlayedPod(name, self.shapes[component], self.now, self.now)
        self.pods[name] = pod
        self._start(pod)

    def _start(self, pod: PlayedPod) -> None:
        shape = pod.shape
        self.fleet.start(pod.name, shape.component, shape.environment, shape.limit * MEBIBYTE, shape.cores)

    def _keep(self) -> None:
        """Dead containers begin again, stopped pods end, missing ones come."""
        for pod in list(self.pods.values()):
            if pod.restart_at is not None and pod.restart_at <= self.now and pod.evicted is None:
                pod.restarted(self.now)
                self._start(pod)
            if pod.deleted is not None and self.fleet.idle(pod.name):
                self._forget(pod)
        for component in self.shapes:
            self._fill(component)

    def _forget(self, pod: PlayedPod) -> None:
        self._count_node(pod.name, gone=True)
        self.fleet.end(pod.name)
        self.pods.pop(pod.name, None)

    def of(self, component: str) -> list[PlayedPod]:
        """Its pods."""
        return [pod for pod in self.pods.values() if pod.shape.component == component]

    def living(self, component: str) -> list[PlayedPod]:
        """Its pods whose containers run and are to stay."""
        return [pod for pod in self.of(component) if pod.running and pod.deleted is None]

    def replace(self, pod: PlayedPod) -> None:
        """Delete a pod, as a drain or a rollout does; its controller makes another."""
        if pod.deleted is None and pod.name in self.pods:
            pod.deleted = self.now
            self.fleet.stop(pod.name)

    def roll(self, component: str, **fields: Any) -> None:  # noqa: ANN401 - any field of a shape
        """Roll a workload out, with another template: one pod after the other."""
        if fields:
            self.shapes[component] = changed(self.shapes[component], **fields)
        old = self.living(component)
        if self.shapes[component].kind == STATEFUL:
            self._one_by_one(old)
        else:
            # A new one first; the old ones go once it is ready.
            fresh = [f"{self.shapes[component].name}-1-{self.seed % 89}{next(self._count)}" for _ in old]
            for name in fresh:
                self._born(name, component)
            self._when_ready(fresh, old)

    def _one_by_one(self, old: list[PlayedPod]) -> None:
        if not old:
            return
        first, rest = old[0], old[1:]
        self.replace(first)

        def again(world: "World") -> None:
            if world.pods.get(first.name) is not first and world.fleet.ready(first.name):
                world._one_by_one(rest)  # noqa: SLF001 - itself
            else:
                world.after(5, again)

        self.after(5, again)

    def _when_ready(self, fresh: list[str], old: list[PlayedPod]) -> None:
        def again(world: "World") -> None:
            if all(world.fleet.ready(name) for name in fresh):
                for pod in old:
                    world.replace(pod)
            else:
                world.after(5, again)

        self.after(5, again)

    def crash(self, pod: PlayedPod, *, back: bool = True) -> None:
        """SIGKILL to its main process; where it is not to come back, it fails at each start."""
        self._count_node(pod.name, gone=True)
        self.fleet.end(pod.name)
        pod.die("Error", self.now)
        if not back:
            pod.restart_at = math.inf

    def evict(self, pod: PlayedPod) -> None:
        """Its node is short of memory: the kubelet ends it at once."""
        self._count_node(pod.name, gone=True)
        self.fleet.end(pod.name)
        pod.evicted, pod.started = self.now, None

    # What is seen of it.

    def _look(self) -> Seen:
        pods = [pod.item(ready=self._ready(pod)) for pod in self.pods.values()]
        items = [shape.item() for shape in self.shapes.values()]
        workloads = inventory.workloads(items, pods, self.line)
        told = {pod.name: self._slots(pod) for pod in self.of("worker") if self._ready(pod)}
        return Seen(self.now, workloads, told if self.broker else None)

    def _ready(self, pod: PlayedPod) -> bool:
        return pod.running and self.fleet.ready(pod.name)

    def _slots(self, pod: PlayedPod) -> Slots:
        """What a Celery worker answers."""
        target, busy = self.fleet.slots(pod.name)
        ran = [self.fleet.now - task.started_at for task in self.fleet.tasks(pod.name)]
        return Slots(target, target, busy, autoscaled=True, queues=("default",), oldest=max(ran, default=0.0))

    def _scrape(self) -> None:
        at = self.now
        if self.silent.get("airflow", 0.0) <= at:
            stamp = f" {at:.3f}\n"
            for name, labels, value in self.fleet.samples(self.wanted):
                told = "NaN" if math.isnan(value) else f"{value:.10g}"
                self.lines.append(f"{self._prefix(name, labels)}{told}{stamp}")
        if self.silent.get("containers", 0.0) <= at:
            self._containers(at)

    def _prefix(self, name: str, labels: Mapping[str, str]) -> str:
        key = (name, *labels.values())
        found = self._prefixes.get(key)
        if found is None:
            told = ",".join(f'{label}="{value}"' for label, value in {**labels, "namespace": self.name}.items())
            found = self._prefixes[key] = f"{name}{{{told}}} "
        return found

    def _containers(self, at: float) -> None:
        """CAdvisor's series. Each container was looked at some seconds before the scrape."""
        for pod in self.pods.values():
            self._count_node(pod.name)
            if not pod.running:
                continue
            stamp = f" {at - 1 - int(pod.container_id[:4], 16) % 12:.3f}\n"
            reading = self.fleet.reading(pod.name)
            labels = {
                "container": pod.shape.component,
                "id": f"/kubepods/burstable/pod{pod.uid}/{pod.container_id}",
                "instance": "node-0",
                "name": pod.container_id,
                "pod": pod.name,
            }
            values: dict[str, float] = {
                "container_cpu_usage_seconds_total": reading.cpu_seconds,
                "container_memory_max_usage_bytes": reading.peak,
                "container_memory_rss": reading.rss,
                "container_memory_working_set_bytes": reading.working_set,
                "container_oom_events_total": reading.process_kills,
            }
            if pod.shape.cores is not None:
                values["container_cpu_cfs_periods_total"] = reading.cfs_periods
                values["container_cpu_cfs_throttled_periods_total"] = reading.cfs_throttled_periods
            for name, value in values.items():
                self.lines.append(f"{self._prefix(name, labels)}{value:.10g}{stamp}")
        node = {"instance": "node-0"}
        stamp = f" {at:.3f}\n"
        used = self._node_before + sum(self._node.values())
        self.lines.append(f"{self._prefix('machine_cpu_cores', node)}{NODE_CORES}{stamp}")
        self.lines.append(f"{self._prefix('container_cpu_usage_seconds_total', {**node, 'id': '/'})}{used:.10g}{stamp}")

    def _count_node(self, name: str, *, gone: bool = False) -> None:
        """The node's CPU seconds: those of all that ever ran there."""
        if self.fleet.alive(name):
            told, before = self.fleet.reading(name).cpu_seconds, self._node.get(name, 0.0)
            if told < before:
                self._node_before += before
            self._node[name] = told
        if gone:
            self._node_before += self._node.pop(name, 0.0)


def ordinary(world: World) -> None:
    """A load that the workers carry with ease: what every world here has all the time."""
    rng = world.rng

    def some(dag: str, count: int, seconds: float, **job: Any) -> Act:  # noqa: ANN401 - any field of a job
        def act(world: World) -> None:
            number = max(1, round(count * rng.uniform(0.7, 1.3)))
            world.fleet.trigger(dag, number, seconds, seconds_spread=0.4, fails=0.01, **job)

        return act

    world.every(60, some("each_minute", 1, 5), rng.uniform(0, 60))
    world.every(300, some("each_five_minutes", 3, 10, mebibytes=20), rng.uniform(0, 300))
    world.every(HOUR, some("hourly", 6, 40, mebibytes=40, memory_spread=0.5, cpu=0.2), rng.uniform(0, HOUR))
