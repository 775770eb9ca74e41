"""An Airflow of the model of weeks as the API server, the broker and Prometheus show it; and answers carried out.

What is shown is what the operator would see in a cluster, from metrics and objects alone. What was decided comes into
force as the operator would bring it: memory in place, slots while the worker runs, parsing with a restart.
"""

import math
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from airflow_tuner import quantity, scraped
from airflow_tuner.environment import INTERVAL, PROCESSES
from airflow_tuner.fleet.weeks import CRITICAL, Weeks
from airflow_tuner.fleet.weekworker import Worker
from airflow_tuner.model import (
    Death,
    Memory,
    Metrics,
    MetricsState,
    Observation,
    Pod,
    Sample,
    Slots,
    Usage,
    Values,
    Workload,
)
from airflow_tuner.telemetry import Airflow, Parsing, Pool, Tasks
from airflow_tuner.transcript import Answer, Target

LINE = "3"
MI = quantity.MEBIBYTE
PARALLELISM = 10000
"""core.parallelism: never in the way."""

PROCESSOR = "airflow-dag-processor-0"
GRACE = 600
"""Seconds, the official chart's."""

IDLE_NODE, NOISY_NODE = 0.4, 0.85
"""Shares of a node's cores that are in use, as usual and with a noisy neighbour."""

FRESH = Metrics(MetricsState.FRESH, "The metrics source answers, and its samples are fresh.")
GONE = Metrics(MetricsState.UNAVAILABLE, "The metrics source does not answer.")


@dataclass(slots=True)
class Played:
    """What is seen of a model, and kept by Prometheus. `look` once a minute, after each step."""

    weeks: Weeks
    template: Memory
    """Of the worker, as its user has set it, in bytes."""
    _containers: dict[tuple[int, int], scraped.Container] = field(default_factory=dict)
    _dags: scraped.Dags = field(default_factory=scraped.Dags)
    _busy: scraped.Busy = field(default_factory=scraped.Busy)
    _rates: deque[tuple[int, int, float]] = field(default_factory=lambda: deque(maxlen=scraped.WINDOW + 1))
    """Started, ended and seconds of the ended tries, by minute."""
    _waiting: deque[int] = field(default_factory=lambda: deque(maxlen=3))
    _longest: scraped.Highest = field(default_factory=lambda: scraped.Highest(scraped.DAY))
    _decision: str = ""
    """What the dag-processor was born with."""
    _resized: set[int] = field(default_factory=set)

    def look(self) -> Observation:
        """What is seen now."""
        weeks, at = self.weeks, self.at
        metrics = not any(span.holds(weeks.day) for span in weeks.scenario.outages)
        if metrics:
            self._scrape()
        return Observation(
            at=at,
            workloads=(self._workers(at), self._scheduler(at, metrics=metrics), self._processor(at, metrics=metrics)),
            metrics=FRESH if metrics else GONE,
            line=LINE,
            airflow=self._airflow() if metrics else Airflow(problem=GONE.message),
            broker="",
        )

    @property
    def at(self) -> datetime:
        """The model's time."""
        begin = self.weeks.scenario.begin
        return datetime(begin.year, begin.month, begin.day, tzinfo=UTC) + timedelta(minutes=self.weeks.minute)

    def carry_out(self, answer: Answer) -> None:
        """Bring into force what was decided."""
        weeks, first = self.weeks, next((wait.pod for wait in answer.waiting if not wait.blocked), None)
        for worker in weeks.living:
            if _name(worker) == first:
                weeks.restart(worker, worker.limit, worker.request)
        for target in answer.targets:
            if target.tuned is None:
                continue
            if target.target == "worker/default":
                for worker in weeks.living:
                    self._change(worker, target)
            elif target.target == "dag-processor" and first == PROCESSOR:
                desired, now = target.desired, weeks.parser
                interval, processes = desired.interval or now.interval, desired.processes or now.processes
                if (interval, processes) != (now.interval, now.processes):
                    weeks.set_parsing(interval, processes)
                    self._decision = target.tuned.decision

    def _change(self, worker: Worker, target: Target) -> None:
        """Memory rises before slots, and slots fall before memory."""
        weeks, memory, slots = self.weeks, target.desired.memory, target.desired.concurrency
        limit = math.inf if memory.limit is None else memory.limit / MI
        request = 0.0 if memory.request is None else memory.request / MI
        if limit > worker.limit:
            weeks.resize(worker, limit, request)
            self._resized.add(worker.number)
        if target.slots_decided and slots is not None and slots != worker.slots:
            weeks.set_slots(worker, slots)
        if (limit, request) != (worker.limit if worker.wanted is None else worker.wanted, worker.request):
            weeks.resize(worker, limit, request)
            self._resized.add(worker.number)

    # The metrics source.

    def _scrape(self) -> None:
        weeks, minute, tally = self.weeks, self.weeks.minute, self.weeks.tally
        noisy = any(span.holds(weeks.day) for span in weeks.scenario.neighbours)
        alive = set()
        for worker in weeks.living:
            if not worker.up:
                continue
            key = (worker.number, worker.life)
            alive.add(key)
            container = self._containers.setdefault(key, scraped.Container(f"w{worker.number}-{worker.life}"))
            anonymous = worker.anonymous + (weeks.laws.probe if weeks.probe_seen() else 0.0)
            cache = min(worker.cache, worker.limit - anonymous) if anonymous < worker.limit else 0.0
            container.add(
                minute,
                scraped.Scrape(
                    anonymous=anonymous * MI,
                    working_set=(anonymous + cache * weeks.laws.active_cache) * MI,
                    peak=worker.peak * MI,
                    cpu=worker.cpu + weeks.laws.idle_cpu,
                    process_kills=worker.process_kills,
                    node_cpu=NOISY_NODE if noisy else IDLE_NODE,
                ),
            )
        for key in [key for key in self._containers if key not in alive]:
            del self._containers[key]
        self._dags.add(minute, tally.by_dag)
        self._busy.add(minute, self._running)
        self._rates.append((tally.started, tally.ended, tally.ended_seconds))
        self._waiting.append(len(weeks.queue))
        self._longest.add(minute, tally.longest)

    @property
    def _running(self) -> int:
        """Tasks that Airflow takes to be running."""
        return self.weeks.running + self.weeks.stranded

    def _airflow(self) -> Airflow:
        weeks = self.weeks
        minutes = len(self._rates) - 1
        if minutes < 1:
            return Airflow(problem="The scheduler's heartbeat has been scraped for a moment only.")
        (started, ended, seconds), (starts, ends, spent) = self._rates[0], self._rates[-1]
        running, waiting, slow = self._running, len(weeks.queue), weeks.slow()
        pool = Pool("default_pool", PARALLELISM - running - waiting, running, waiting, weeks.scheduled)
        paces, pace = self._dags.paces()
        least = min(self._waiting)
        critical = CRITICAL * slow
        tasks = Tasks(
            pools=(pool,),
            queued={"default": waiting},
            running={"default": running},
            open_slots=PARALLELISM - running - waiting,
            open_least=PARALLELISM - running - waiting,
            starving=0,
            handed_out=running + waiting,
            started=(starts - started) / (60 * minutes),
            duration=(spent - seconds) / (ends - ended) if ends > ended else None,
            longest=self._longest.at(weeks.minute),
            critical=critical,
            section=critical + 0.02,
            busy_day=self._busy.day,
            handed_out_least=least,
            waiting_least=least,
            queued_least={"default": least},
            paces=paces,
            pace=pace,
            quiet=0.0 if len(self._rates) > 2 and self._rates[-1][0] > self._rates[-3][0] else 180.0,  # noqa: PLR2004
        )
        return Airflow(tasks, self._parsing(), loop=weeks.laws.loop_interval + critical, beats=36, import_errors=0)

    def _parsing(self) -> Parsing | None:
        weeks = self.weeks
        count, seconds = weeks.files
        parser = weeks.parser
        cycle = parser.cycle(count, seconds)
        if weeks.now < parser.since + 2 * cycle:
            return None
        return Parsing(
            count, count / cycle, seconds, parser.loop(count, seconds), queue=0, oldest=cycle + seconds, slowest=()
        )

    # The API server and the broker.

    def _workers(self, at: datetime) -> Workload:
        template, slots = self.template, self.weeks.scenario.slots
        stated = {
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": f"{slots}",
            "AIRFLOW__CELERY__WORKER_AUTOSCALE": f"{slots},{slots}",
        }
        pods = tuple(replace(self._worker(worker, at), environment=stated) for worker in self.weeks.living)
        return Workload(
            target="worker/default",
            component="worker",
            kind="StatefulSet",
            name="airflow-worker",
            container="worker",
            pod_labels={"component": "worker", "release": "airflow"},
            requests={} if template.request is None else {"memory": quantity.mebibytes(template.request)},
            limits={} if template.limit is None else {"memory": quantity.mebibytes(template.limit)},
            template=template,
            pods=pods,
            environment=stated,
            names=frozenset(stated),
            stated=Values(concurrency=slots),
            replicas=len(pods),
            grace=GRACE,
        )

    def _worker(self, worker: Worker, at: datetime) -> Pod:
        weeks, name = self.weeks, _name(worker)
        limit = None if math.isinf(worker.limit) else round(worker.limit * MI)
        memory = Memory(None if math.isinf(worker.request) else round(worker.request * MI), limit)
        begin = at - timedelta(minutes=weeks.minute)
        container = self._containers.get((worker.number, worker.life))
        death = Death(worker.deaths, begin + timedelta(seconds=worker.died_at)) if worker.deaths else None
        oldest = min((task.started_at for task in worker.tasks), default=weeks.now)
        slots = worker.slots
        return Pod(
            name=name,
            uid=name,
            created=begin,
            memory=memory,
            running=memory if worker.up else None,
            container_id=f"w{worker.number}-{worker.life}",
            started=begin + timedelta(seconds=worker.started_at) if worker.up else None,
            deaths=worker.deaths,
            death=death,
            resized=worker.number in self._resized,
            usage=Usage() if container is None or not worker.up else container.usage(weeks.minute, at),
            ready=worker.up,
            slots=Slots(slots, slots, worker.busy, autoscaled=True, queues=("default",), oldest=weeks.now - oldest)
            if worker.up
            else None,
        )

    def _scheduler(self, at: datetime, *, metrics: bool) -> Workload:
        cpu = 0.05 if self.weeks.slow() > 1 else 0.3
        return self._single("scheduler", at, cpu, 200 * MI, metrics=metrics)

    def _processor(self, at: datetime, *, metrics: bool) -> Workload:
        weeks, laws, parser = self.weeks, self.weeks.laws, self.weeks.parser
        count, seconds = weeks.files
        cpu = laws.idle_cpu + count * seconds / parser.cycle(count, seconds)
        held = laws.dag_processor_base + parser.processes * laws.parse_process + laws.probe
        return self._single("dag-processor", at, cpu, held * MI, metrics=metrics)

    def _single(self, component: str, at: datetime, cpu: float, held: float, *, metrics: bool) -> Workload:
        """A component of one pod, of which the model knows no more than this."""
        begin = at - timedelta(minutes=self.weeks.minute)
        memory = Memory(1024 * MI, 1024 * MI)
        stated = Values()
        environment: dict[str, str] = {}
        decision, started = None, begin
        if component == "dag-processor":
            made, parser = self.weeks.scenario, self.weeks.parser
            stated = Values(interval=round(made.interval), processes=made.processes)
            environment = {INTERVAL[LINE]: f"{round(parser.interval)}", PROCESSES[LINE]: f"{parser.processes}"}
            decision, started = self._decision or None, begin + timedelta(seconds=max(0.0, parser.since))
        usage = Usage()
        if metrics:
            size, cores = Sample(held, at), Sample(cpu, at)
            usage = Usage(
                process_kills=Sample(0, at),
                peak=size,
                working_set=size,
                anonymous=size,
                anonymous_day=size,
                cpu=cores,
                cpu_of_rounds=cores,
            )
        pod = Pod(
            name=f"airflow-{component}-0",
            uid=component,
            created=min(started, at),
            memory=memory,
            running=memory if started <= at else None,
            container_id=f"{component}-{started.timestamp():.0f}",
            started=started if started <= at else None,
            decision=decision,
            usage=usage,
            environment=environment,
        )
        template: dict[str, str] = (
            {INTERVAL[LINE]: f"{stated.interval}", PROCESSES[LINE]: f"{stated.processes}"} if environment else {}
        )
        return Workload(
            target=component,
            component=component,
            kind="Deployment",
            name=f"airflow-{component}",
            container=component,
            pod_labels={"component": component, "release": "airflow"},
            requests={"memory": "1024Mi"},
            limits={"memory": "1024Mi"},
            template=memory,
            pods=(pod,),
            environment=template,
            stated=stated,
        )


def _name(worker: Worker) -> str:
    """Of its pod."""
    return f"airflow-worker-{worker.number}"
