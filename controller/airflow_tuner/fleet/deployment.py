"""One Airflow deployment with Celery, seen from outside: containers, tasks, DAG files, and time that is let pass."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from airflow_tuner.fleet import settings
from airflow_tuner.fleet.broker import Broker
from airflow_tuner.fleet.container import Birth, Container, Kill, Reading, Surroundings
from airflow_tuner.fleet.exporter import CAPACITY, HEARTBEAT, Exporter
from airflow_tuner.fleet.laws import Laws
from airflow_tuner.fleet.parsing import DagProcessor, Folder
from airflow_tuner.fleet.scheduler import Scheduler
from airflow_tuner.fleet.statsd import Sample, Wanted
from airflow_tuner.fleet.tasks import Job, Ledger, Run, Task
from airflow_tuner.fleet.worker import Airflow, Worker

TICK = 0.25
"""Seconds between two looks at everything. What happens within a container happens between them, in its own time."""

EXACT = 1e-9


class Deployment:
    """A deployment: the same seed and the same calls give the same everything.

    `laws` are drawn from the seed where none are given. `group_kills`: the kernel kills whole containers only.
    """

    def __init__(
        self,
        seed: int,
        *,
        line: str = "3",
        group_kills: bool = False,
        parallelism: int = 32,
        pools: Mapping[str, int] | None = None,
        leaks: Mapping[str, float] | None = None,
        laws: Laws | None = None,
    ) -> None:
        self.line, self.laws = line, laws or Laws.drawn(seed, line)
        self.now = 0.0
        """Seconds since the beginning, as far as everything has come."""
        rng = random.Random(seed)  # noqa: S311 - a model, not a secret
        self._around = Surroundings(self.laws, line, rng, group_kills, leaks=dict(leaks or {}))
        self._exporter = Exporter(line)
        self._ledger = Ledger(rng)
        self._broker = Broker(rng, self.laws.stranded_first, self.laws.stranded_last)
        self._airflow = Airflow(self._ledger, self._broker, self._exporter)
        self._scheduler = Scheduler(self.laws, self._ledger, self._broker, self._exporter, parallelism)
        self._scheduler.pools.update(pools or {})
        self._parallelism = parallelism
        self._containers: dict[str, Container] = {}
        self._folder = Folder()
        self._deferred = 0
        self._asked = 0.0
        self._ticks = 0
        self._turn = 0
        self._trigger_at = 0.0

    # Containers, as a kubelet starts, resizes and ends them.

    def start(
        self,
        name: str,
        component: str,
        environment: Mapping[str, str],
        limit: int | None,
        cores: float | None = None,
        *,
        queues: Sequence[str] = ("default",),
    ) -> None:
        """Start a container, also after its death. `name` is its pod's; the limit is in bytes."""
        self.end(name)
        birth = Birth(name, component, self.now, environment, limit, cores, tuple(queues))
        container: Container
        if component == "worker":
            container = Worker(birth, self._around, self._airflow)
        elif component == "dag-processor":
            container = DagProcessor(birth, self._around, self._folder, self._exporter)
        else:
            container = Container(birth, self._around)
        if component == "scheduler":
            self._scheduler.parallelism = settings.parallelism(environment, self._parallelism)
        self._containers[name] = container
        container.changed(self.now)

    def resize(self, name: str, limit: int | None, cores: float | None = None) -> None:
        """Put other resources in force; `None`: no limit."""
        self._containers[name].resize(limit, cores, self.now)

    def stop(self, name: str) -> None:
        """SIGTERM. A worker takes no more messages, gives back what it has not begun, and goes on with its tasks."""
        self._containers[name].stop(self.now)

    def idle(self, name: str) -> bool:
        """Nothing runs in it: a stopping container may end now."""
        container = self._containers.get(name)
        return container is None or container.idle

    def end(self, name: str) -> None:
        """It is gone. Its tasks are lost, and its messages stranded, unless it had stopped and become idle."""
        container = self._containers.pop(name, None)
        if container is not None:
            container.die(self.now)

    def ready(self, name: str) -> bool:
        """It does its work."""
        container = self._containers.get(name)
        return container is not None and container.ready

    def alive(self, name: str) -> bool:
        """It runs: it has been started, and not killed since."""
        container = self._containers.get(name)
        return container is not None and not container.dead

    def reading(self, name: str) -> Reading:
        """What cAdvisor would show of it; of one that was killed, its last counts and no memory."""
        container = self._containers[name]
        container.settle(self.now)
        return container.reading()

    # Time.

    def advance(self, seconds: float) -> tuple[Kill, ...]:
        """Let time pass; the kills since the last call. Fractions of a tick are carried on."""
        self._asked += seconds
        last = int((self._asked + EXACT) / TICK)
        while self._ticks < last:
            # In ticks before the next thing that is due, nothing happens.
            due = min(last, math.ceil((self._next() - EXACT) / TICK))
            self._ticks = max(self._ticks + 1, due)
            self._tick(self._ticks * TICK)
        kills = tuple(self._around.kills)
        self._around.kills.clear()
        return kills

    def _next(self) -> float:
        """When the next thing is due."""
        if self._broker.stirred:
            return 0.0
        due = min((container.due for container in self._containers.values()), default=math.inf)
        return min(due, self._scheduler.due, self._trigger_at)

    def _tick(self, now: float) -> None:
        self.now = self._exporter.now = now
        for container in self._containers.values():
            if container.due <= now:
                container.happen(now)
        if now >= self._scheduler.due:
            schedulers = self._working("scheduler")
            if schedulers:
                self._scheduler.run(now, max(container.factor for container in schedulers))
            for container in schedulers:
                container.work(self._scheduler.load, now)
        if self._broker.stirred:
            self._deliver(now)
        if now >= self._trigger_at:
            self._trigger_at = now + HEARTBEAT
            self._wait(self._working("triggerer"))

    def _working(self, component: str) -> list[Container]:
        every = self._containers.values()
        return [item for item in every if item.component == component and item.ready and not item.frozen]

    def _wait(self, triggerers: Sequence[Container]) -> None:
        """The triggers are shared among the triggerers; each tells of its own."""
        for number, container in enumerate(triggerers):
            share = self._deferred // len(triggerers) + (number < self._deferred % len(triggerers))
            self._exporter.triggerer(container.name, min(CAPACITY, share))

    def _deliver(self, now: float) -> None:
        """Each worker takes one message after the other, in turn with those that listen to the same queue."""
        self._broker.stirred = False
        workers = [container for container in self._containers.values() if isinstance(container, Worker)]
        filled: dict[Worker, None] = {}
        for queue, messages in self._broker.queues.items():
            takers = [worker for worker in workers if queue in worker.queues and worker.room > 0]
            while messages and takers:
                self._turn += 1
                worker = takers[self._turn % len(takers)]
                worker.take(messages.popleft(), now)
                filled[worker] = None
                if worker.room <= 0:
                    takers.remove(worker)
        for worker in filled:
            worker.changed(now)

    # Work.

    def trigger(self, dag: str, count: int, seconds: float, mebibytes: float = 0.0, **job: Any) -> str:  # noqa: ANN401 - any other field of a job
        """Run a DAG of `count` tasks, each of so many seconds and MiB of its own; the run's id.

        `job`: any other field of a `Job` (queue, pool, retries, retry_delay, cpu, memory_spread, fails ...).
        """
        return self.run(replace(Job(dag, count, seconds, mebibytes), **job))

    def run(self, job: Job) -> str:
        """Run a job now; the run's id."""
        if job.pool not in self._scheduler.pools:
            raise ValueError(f"There is no pool {job.pool!r}.")
        self._exporter.created(job.dag, job.count)
        return self._ledger.create(job, self.now).id

    def states(self, run: str) -> dict[str, int]:
        """How many tasks of a run are in which state."""
        return dict(self._ledger.runs[run].states)

    def find(self, run: str) -> Run:
        """A run with its tasks."""
        return self._ledger.runs[run]

    def set_slots(self, name: str, slots: int) -> bool:
        """Celery's autoscale control, max = min = slots. A worker that was not started with autoscale refuses."""
        container = self._containers.get(name)
        return isinstance(container, Worker) and container.set_slots(slots, self.now)

    def slots(self, name: str) -> tuple[int, int]:
        """A worker's slots in force, and how many of its processes are busy."""
        container = self._containers[name]
        return (container.target, container.busy) if isinstance(container, Worker) else (0, 0)

    def tasks(self, name: str) -> list[Task]:
        """What runs in a worker now."""
        container = self._containers.get(name)
        return container.tasks if isinstance(container, Worker) else []

    def redeliver(self) -> int:
        """Give stranded messages back to their queues at once; how many."""
        return self._scheduler.recover(self.now)

    @property
    def waiting(self) -> int:
        """Tasks that could run and do not: scheduled, or handed out and not begun."""
        return self._in("scheduled") + self._in("queued")

    @property
    def running(self) -> int:
        """Tasks that a worker runs now; stranded ones do not count."""
        return sum(worker.busy for worker in self._containers.values() if isinstance(worker, Worker))

    @property
    def stranded(self) -> int:
        """Messages held for workers that are gone."""
        return self._broker.stranded

    @property
    def handed_out(self) -> int:
        """What the executor takes to be running: running, waiting in the broker, and stranded."""
        return len(self._scheduler.handed_out)

    def _in(self, state: str) -> int:
        return sum(states.get(state, 0) for states in self._ledger.by_pool.values())

    # The world around.

    def files(self, count: int, seconds: float, name: str = "dag") -> None:
        """The folder holds so many DAG files of this name, each of so many CPU seconds a parse; 0 removes them."""
        for file in [file for file in self._folder.files if file.rpartition("_")[0] == name]:
            del self._folder.files[file]
        self._folder.files.update((f"{name}_{number}", seconds) for number in range(count))

    def break_files(self, count: int) -> None:
        """So many of the DAG files cannot be imported from now on; 0: all can."""
        self._folder.broken = {*list(self._folder.files)[:count]}

    def defer(self, tasks: int) -> None:
        """So many deferred tasks have their trigger in a triggerer, or wait for room in one."""
        self._deferred = tasks

    def set_pool(self, name: str, slots: int) -> None:
        """Create a pool, or change its slots."""
        self._scheduler.pools[name] = slots

    def leak(self, component: str, mebibytes: float) -> None:
        """From now on the component's containers leak so many MiB in each hour."""
        containers = [container for container in self._containers.values() if container.component == component]
        for container in containers:
            container.settle(self.now)
        self._around.leaks[component] = mebibytes
        for container in containers:
            container.changed(self.now)

    def slow_database(self, seconds: float | None) -> None:
        """The scheduler's critical query takes so long; `None`: as usual."""
        self._scheduler.query_seconds = self.laws.query_seconds if seconds is None else seconds

    def lock_database(self, seconds: float) -> None:
        """The scheduler's critical section waits so long for a lock, and its query is as fast as ever; 0: no more."""
        self._scheduler.locked_seconds = seconds

    def burden(self, seconds: float | None) -> None:
        """A loop of the scheduler takes so many CPU seconds; `None`: as usual."""
        self._scheduler.loop_cpu = self.laws.loop_cpu if seconds is None else seconds

    def freeze(self, name: str, *, frozen: bool = True) -> None:
        """SIGSTOP to all processes of a container, or SIGCONT."""
        self._containers[name].freeze(self.now, frozen=frozen)

    def keep_cache(self, component: str, share: float, mebibytes: float) -> None:
        """From now on the component's containers read the same files again: so much of their page cache is active.

        `mebibytes`: by which it grows in an hour.
        """
        for container in self._containers.values():
            container.settle(self.now)
        self._around.caches[component] = (share, mebibytes)

    def restart_exporter(self) -> None:
        """Its exporter begins again: what was counted is lost, and a gauge is there once it is told again."""
        self._exporter.forget()

    def samples(self, wanted: Wanted | None = None) -> list[Sample]:
        """Airflow's series as its exporter shows them now: name, labels, value. `wanted` chooses by the name."""
        return self._exporter.samples(wanted)
