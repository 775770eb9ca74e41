"""One Airflow in the containers of a compose project: what is seen of it, and what becomes of a decision there.

The edge between a Docker engine and the core: services are workloads, containers pods.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from airflow_tuner import actuator, api, compose, observe, parsing, prometheus, signals, status, telemetry
from airflow_tuner.broker import Broker
from airflow_tuner.database import Counts, Database
from airflow_tuner.engine import Engine, Gone
from airflow_tuner.errors import Refused, TunerError
from airflow_tuner.gauges import Gauge, Gauges, Row, reading
from airflow_tuner.model import (
    Decision,
    Memory,
    Metrics,
    MetricsState,
    Observation,
    Pod,
    Slots,
    TargetDecision,
    Workload,
)
from airflow_tuner.past import from_tuned
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.quantity import readable
from airflow_tuner.settings import read_url
from airflow_tuner.store import Store
from airflow_tuner.tally import Tally

WINDOW = 300.0
"""Seconds that the use of the machine's cores is averaged over."""
TOGETHER = 10.0
"""Seconds within which a container that ends by SIGKILL after an out-of-memory kill in it died of that."""
SIGKILLED = "137"
EVENTS = {"event": ["oom", "die", "kill", "start"]}
UNREAD = (
    "Neither a Prometheus (--prometheus) nor the broker (--broker-url-file) nor the metadata database "
    "(--database-url-file) tells how tasks flow."
)
BUSY = "slots"
"""The name under which the busiest moment of each minute is kept, beside the minutes of containers."""
SWAP = 2
"""Times its memory that a container may take with swap when nobody says more, as the engine has it itself."""

Object = dict[str, Any]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Told:
    """What workers and a metrics source said at the last look."""

    slots: Mapping[str, Slots] = field(default_factory=dict)
    """By container."""
    broker: str | None = None
    """What is wrong with the broker; `None`: there is none."""
    values: Mapping[str, tuple[signals.Series, ...]] = field(default_factory=dict)
    problem: str = ""
    """What is wrong with what Airflow says of itself."""
    naming: str = ""
    tasks: telemetry.Tasks | None = None
    """How tasks flow, where the broker or the database tells it."""
    of_database: str = ""
    """What is wrong with the metadata database."""


@dataclass
class Project:
    """The containers of one Airflow, and what is known of them beside what the engine shows."""

    engine: Engine
    store: Store
    gauges: Gauges = field(default_factory=Gauges)
    source: Prometheus | None = None
    broker: Broker | None = None
    database: Database | None = None
    tally: Tally = field(default_factory=Tally)
    """How tasks flow, where no Prometheus tells it."""
    told: Told = Told()
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while something that was killed waits for its answer: nobody slow is asked then."""
    hosts: dict[str, str] = field(default_factory=dict)
    """What a container's worker calls itself by, by name of the container."""
    living: dict[str, str] = field(default_factory=dict)
    """The container of each that runs now, by container and start."""
    _kills: dict[str, float] = field(default_factory=dict)
    """When each container was last told to end, by id."""
    _began: bool = False
    _ticks: deque[tuple[float, int, int]] = field(default_factory=deque)
    """At each sample within the window: when, and the machine's CPU time in use and in all until then."""

    async def observe(self, spec: api.Spec, prior: api.Status, now: datetime) -> Observation:
        """Look once. Without the engine it raises; without metrics of Airflow or broker it says so and goes on."""
        items = await self.engine.containers(compose.labels(spec))
        ours = [item for item in items if compose.component(item)]
        known = self.store.known()
        for item in ours:
            if item["Id"] not in known.given:
                self.store.define(compose.key(item), compose.baseline(item))
        self.hosts = {str(item["Name"]).lstrip("/"): compose.hostname(item) for item in ours}
        self.living = {compose.incarnation(item): str(item["Id"]) for item in ours if item["State"].get("Running")}
        await self.sample(now)
        line = compose.line(ours, spec.airflow.version, prior.airflow_version)
        runs = compose.executors(ours, spec.airflow.executor)
        shown = compose.workloads(ours, self.store.known(), line)
        # Kills are looked at last, as the answers may take long.
        self.told = told = await self._unless_hurried(self._hear(spec, shown, line, prior, now), self.told)
        workloads = tuple(
            replace(one, pods=tuple(replace(pod, slots=told.slots.get(pod.name)) for pod in one.pods))
            for one in self._measured(shown, spec, now)
        )
        asks = observe.asks_airflow(spec, runs)
        problem = told.problem if asks else ""
        heard = observe.Heard(told.values, "", problem, told.slots, told.broker, told.naming, asks)
        found = observe.observed(spec, workloads, line, heard, now, runs)
        if told.tasks is not None:
            found = replace(found, airflow=telemetry.Airflow(tasks=told.tasks, problem=told.of_database))
        return replace(found, workloads=workloads, metrics=self._metrics(workloads), admission=False)

    async def _hear(
        self, spec: api.Spec, workloads: tuple[Workload, ...], line: str | None, prior: api.Status, now: datetime
    ) -> Told:
        """Ask the workers and the metrics source."""
        (slots, broker), (values, problem, naming) = await asyncio.gather(
            self._slots(spec, workloads), self._airflow(spec, workloads, line, prior)
        )
        running = [pod for one in workloads if one.component == "worker" for pod in one.living if pod.running]
        if self.source is not None:
            return Told(slots, broker, values, problem, naming)
        counts, of_database = await self._in_database()
        tasks = None
        if counts is not None or slots:
            # With a worker that does not answer, what is busy is not known: then it counts as at the last look.
            whole = len(slots) == len(running)
            tasks = await self._counted(counts, slots, now) if whole or not slots else self.told.tasks
        return Told(slots, broker, values, of_database or problem, naming, tasks, of_database)

    async def _in_database(self) -> tuple[Counts | None, str]:
        """What the metadata database knows of tasks, and what is wrong with it."""
        if self.database is None:
            return None, ""
        try:
            return await self.database.counts(), ""
        except TunerError as error:
            return None, str(error)

    async def _unless_hurried(self, work: Coroutine[Any, Any, _T], otherwise: _T) -> _T:
        """What `work` comes to; `otherwise` where something has been killed and waits for its answer."""
        task, hurry = asyncio.create_task(work), asyncio.create_task(self.hurry.wait())
        try:
            await asyncio.wait({task, hurry}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else otherwise
        finally:
            task.cancel()
            hurry.cancel()

    async def _counted(
        self, counts: Counts | None, slots: Mapping[str, Slots], now: datetime
    ) -> telemetry.Tasks | None:
        """How tasks flow, as the database or else the broker says, and the workers; `None`: they do not."""
        if not self._began:
            for row in self.store.minutes(BUSY):
                self.tally.keep(row.minute, int(row.anonymous))
            self._began = True
        running = 0
        if counts is not None:
            queued, running = counts.queued, sum(counts.running.values())
        elif self.broker is not None:
            try:
                queued = await self.broker.queued(sorted({queue for one in slots.values() for queue in one.queues}))
            except TunerError:
                return None
        else:
            return None
        if (ended := self.tally.add(now, queued, slots, running)) is not None:
            self.store.keep([Row(BUSY, ended[0], ended[1], 0.0, 0.0)])
        tasks = self.tally.tasks(queued)
        if tasks is None or counts is None:
            return tasks
        return replace(tasks, pools=counts.pools, running=counts.running)

    async def sample(self, now: datetime) -> None:
        """Read the memory and CPU of what runs."""
        busy = self._busy(now)
        told = await asyncio.gather(*(self._read(container) for container in self.living.values()))
        rows = []
        for name, stats in zip(self.living, told, strict=True):
            found = reading(stats) if stats is not None else None
            if found is not None and (row := self._gauge(name).add(found, now, busy)) is not None:
                rows.append(row)
        self.gauges.cores = busy if busy is not None else self.gauges.cores
        self.gauges.forget(self.living)
        self.store.keep(rows)

    async def _read(self, container: str) -> Object | None:
        try:
            return await self.engine.stats(container)
        except Refused:
            return None

    def _gauge(self, name: str) -> Gauge:
        """The samples of a container; those that an earlier process took are read first."""
        known = name in self.gauges.known
        gauge = self.gauges.of(name)
        for row in () if known else self.store.minutes(name):
            gauge.keep(row)
        return gauge

    def _busy(self, now: datetime) -> float | None:
        """Share of the machine's cores in use over the window; known where the engine is on this machine."""
        if not self.engine.address.startswith("unix:"):
            return None
        try:
            words = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
        except OSError:
            return None
        ticks = [int(word) for word in words]
        # Idle, and waiting for a disk.
        total, used = sum(ticks), sum(ticks) - ticks[3] - ticks[4]
        self._ticks.append((now.timestamp(), used, total))
        while self._ticks[0][0] < now.timestamp() - WINDOW:
            self._ticks.popleft()
        _, before, until = self._ticks[0]
        return (used - before) / (total - until) if total > until else None

    def _measured(self, workloads: Iterable[Workload], spec: api.Spec, now: datetime) -> tuple[Workload, ...]:
        kills, stale = self.store.kills(whole=False), timedelta(seconds=spec.metrics.stale_after_seconds)

        def measured(pod: Pod) -> Pod:
            gauge = self.gauges.known.get(pod.container_id)
            if gauge is None:
                return pod
            # Those of before its start are of another life.
            own = [at for at in kills.get(pod.uid, ()) if pod.started is not None and at >= pod.started]
            return replace(pod, usage=gauge.usage(now, own, stale, self.gauges.cores))

        return tuple(replace(one, pods=tuple(measured(pod) for pod in one.pods)) for one in workloads)

    @staticmethod
    def _metrics(workloads: Iterable[Workload]) -> Metrics:
        pods = [pod for workload in workloads for pod in workload.living if pod.running is not None]
        times = [pod.usage.working_set.at for pod in pods if pod.usage.working_set is not None]
        if not times:
            return Metrics(MetricsState.ABSENT, "The engine has no sample of a container that runs.")
        return Metrics(MetricsState.FRESH, "The engine's samples of the containers are fresh.", max(times))

    async def _slots(self, spec: api.Spec, workloads: Iterable[Workload]) -> tuple[Mapping[str, Slots], str | None]:
        """What the Celery workers say of themselves, by container, and what is wrong with the broker."""
        if self.broker is None:
            told = "spec.celery is given, but no broker: name a file with its URL by --broker-url-file."
            return {}, None if spec.celery is None else told
        running = [pod.name for one in workloads if one.component == "worker" for pod in one.living if pod.running]
        hosts = {self.hosts[name]: name for name in running if self.hosts.get(name)}
        try:
            said = await self.broker.workers([*hosts]) if hosts else {}
        except TunerError as error:
            return {}, str(error)
        return {hosts[host]: slots for host, slots in said.items()}, ""

    async def set_slots(self, name: str, now: Slots, slots: int) -> None:
        """Give the worker in a container its slots."""
        if self.broker is not None:
            await self.broker.set_slots(self.hosts[name], now, slots)

    async def _airflow(
        self, spec: api.Spec, workloads: tuple[Workload, ...], line: str | None, prior: api.Status
    ) -> tuple[Mapping[str, tuple[signals.Series, ...]], str, str]:
        """What Airflow says of itself, what is wrong with that, and how its metrics are named."""
        if self.source is None:
            return {}, UNREAD, ""
        values: dict[str, tuple[signals.Series, ...]] = {}
        try:
            scope = prometheus.scope(spec.metrics, "", parsing.rounds(spec, workloads, line))
        except TunerError as error:
            return {}, str(error), ""
        answers, naming = await observe.airflow_answers(self.source, spec, scope, observe.named(prior), None)
        problem = ""
        for signal, answer in answers.items():
            if isinstance(answer, TunerError):
                problem = problem or str(answer)
            else:
                values |= signals.parted(answer, signal)
        return values, problem, naming

    async def resize(self, decision: Decision) -> tuple[int, dict[str, str]]:
        """Give running containers the memory and CPU that were decided: (how many changes, refusals by container)."""
        changed, refusals = 0, {}
        for target in decision.targets:
            for pod in target.workload.living:
                limit, cpu = wanted(target, pod), status.resized_cpu(target, pod)
                if limit is not None and pod.memory.limit is None and (why := _too_much(pod, limit)):
                    refusals[pod.name] = why
                    continue
                try:
                    if limit not in {None, pod.memory.limit}:
                        await self._set_memory(pod, limit or 0)
                        changed += 1
                    if pod.running and cpu is not None and cpu.limit not in {None, pod.cpu.limit}:
                        await self._set_cpu(pod, cpu.limit or 0)
                        changed += 1
                except Gone:
                    continue
                except Refused as error:
                    refusals[pod.name] = str(error)
        return changed, refusals

    async def _set_memory(self, pod: Pod, limit: int) -> None:
        """Memory and swap go together: the one alone is refused where it crosses the other."""
        host = (await self.engine.get(f"/containers/{pod.uid}/json"))["HostConfig"]
        memory, swap = host.get("Memory") or 0, host.get("MemorySwap") or 0
        # As much swap beside it as before.
        with_swap = -1 if swap < 0 else limit + max(0, swap - memory) if memory else SWAP * limit
        # Remembered first: what was set and is not remembered would count as the user's.
        self.store.give(pod.uid, limit)
        try:
            body = {"Memory": limit, "MemorySwap": with_swap}
            await self.engine.tell("POST", f"/containers/{pod.uid}/update", body=body)
        except Refused:
            if pod.resized and memory:
                self.store.give(pod.uid, memory)
            elif not pod.resized:
                self.store.take_back(pod.uid)
            raise

    async def _set_cpu(self, pod: Pod, limit: int) -> None:
        """`limit`: thousandths of a core."""
        item = await self.engine.get(f"/containers/{pod.uid}/json")
        await self.engine.tell("POST", f"/containers/{pod.uid}/update", body=compose.limited(item, limit))

    async def act(self, decision: Decision, refused: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        """Memory first, then slots: (how many containers were changed, refusals by container)."""
        changed, refusals = await self.resize(decision)
        if self.broker is None:
            return changed, refusals
        more, others = await self._unless_hurried(actuator.set_slots(self, decision, refused), (0, {}))
        return changed + more, refusals | others

    async def kills(self, labels: Mapping[str, str]) -> AsyncIterator[str]:
        """What happens to its containers from the last that was seen on, each as it happens; kills are remembered."""
        since = float(self.store.document("events").get("since", datetime.now(UTC).timestamp()))
        # A tuner that begins anew asks for what came meanwhile.
        self.store.write(events={"since": since})
        filters = {**EVENTS, "label": [f"{key}={value}" for key, value in labels.items()]}
        async for event in self.engine.events(since, filters):
            at, container = event["timeNano"] / 10**9, str(event["Actor"]["ID"])
            what, told = str(event["Action"]), event["Actor"].get("Attributes") or {}
            if what == "oom":
                self.store.killed(container, at, whole=False)
            elif what == "kill" and told.get("signal") in {"9", "SIGKILL"}:
                self._kills[container] = at
            elif what == "die" and told.get("exitCode") == SIGKILLED and self._of_memory(container, at):
                self.store.killed(container, at, whole=True)
            self.store.write(events={"since": at})
            yield what

    def _of_memory(self, container: str, at: float) -> bool:
        """A container that ended by SIGKILL did so for memory: no one told it to."""
        told_to = at - self._kills.get(container, 0.0) <= TOGETHER
        times = self.store.kills(whole=False).get(container, ())
        return not told_to and any(0 <= at - time.timestamp() <= TOGETHER for time in times)


def wanted(target: TargetDecision, pod: Pod) -> int | None:
    """The limit that a running container should have; `None`: it is not ours to change.

    Other than in a pod, a first limit can be set while it runs.
    """
    if pod.running is None:
        return None
    if pod.memory.limit is None:
        first = from_tuned(target.tuned) or Memory()
        return first.limit
    found = status.resized(target, pod)
    return None if found is None else found.limit


def _too_much(pod: Pod, limit: int) -> str:
    """Why a container gets no first limit now; empty where it may."""
    held = pod.usage.working_set
    if held is None:
        return "What it holds is not known yet."
    if held.value * status.FREE > limit:
        return f"It holds {readable(int(held.value))}, too much for a limit of {readable(limit)}."
    return ""


def broker_of(file: Path | None) -> Broker | None:
    """The broker whose URL stands in a file; `Misconfigured` where it cannot be read."""
    return None if file is None else Broker(read_url(file, "the broker", "--broker-url-file"))
