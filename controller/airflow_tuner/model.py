"""The values that pass through one turn: what was seen, what is wrong, what is to be done.

All are frozen, sizes are bytes, times are aware datetimes. `None` means: not set, or not known; it never means zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from airflow_tuner import api
from airflow_tuner.autoscaler import Autoscaler
from airflow_tuner.budget import Budget
from airflow_tuner.crash import Crash
from airflow_tuner.due import DueRun
from airflow_tuner.executor import UNKNOWN, Executors
from airflow_tuner.history import History
from airflow_tuner.probe import Probe
from airflow_tuner.room import Room
from airflow_tuner.task_runs import TaskName, TaskRuns
from airflow_tuner.telemetry import Airflow

SERVICE = "Service"
"""Kind of a workload that is a service of a Docker engine: a container each is what elsewhere is a pod."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A request and a limit in bytes; `None` where none is set."""

    request: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Cpu:
    """A request and a limit in thousandths of a core; `None` where none is set."""

    request: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Values:
    """What a container is set to. `None` where it is not known, or not what this container has."""

    memory: Memory = Memory()
    concurrency: int | None = None
    """Slots of each Celery worker."""
    interval: int | None = None
    """Seconds between two parses of a DAG file."""
    processes: int | None = None
    """DAG files that are parsed at once."""
    cpu: Cpu = field(default=Cpu(), kw_only=True)
    """Not set, too, where the policy names no bounds of CPU."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a series, and when it was taken."""

    value: float
    at: datetime
    momentary: bool = False
    """It is no largest and no mean of a time, but what was in use then."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the metrics say about one living container. Each is `None` where no sample was fresh enough."""

    process_kills: Sample | None = None
    """Processes of the container that the kernel killed for memory since it started."""
    process_kills_before: Sample | None = None
    """The same, one hour earlier."""
    peak: Sample | None = None
    """Most memory in use at once since the container started, page cache included."""
    working_set: Sample | None = None
    """Largest working set within a day."""
    anonymous: Sample | None = None
    """Most anonymous memory within the window, in bytes."""
    anonymous_day: Sample | None = None
    """Most anonymous memory within a day, in bytes."""
    anonymous_before: Sample | None = None
    """Anonymous memory a day ago, in bytes: where it is known, that day was seen."""
    growth_days: Sample | None = None
    """Bytes per second by which its floor of anonymous memory rises evenly, seen over a day and a half."""
    growth_by_day: Sample | None = None
    """Bytes per second by which that floor is above that of the same hours of the day before, seen for two days."""
    growth_hours: Sample | None = None
    """The same as over a day and a half, seen over hours."""
    cpu: Sample | None = None
    """Cores in use, averaged over the window."""
    cpu_of_rounds: Sample | None = None
    """The same, averaged over whole rounds of parsing."""
    throttled: Sample | None = None
    """Share of its scheduling periods in which the CPU limit held it back."""
    node_cpu: Sample | None = None
    """Share of its node's cores that is in use by all."""

    @property
    def momentary(self) -> bool:
        """Working set and CPU are those of a moment, and nothing else is known: no decision rests on them."""
        return any(sample is not None and sample.momentary for sample in (self.working_set, self.cpu))


@dataclass(frozen=True, slots=True)
class Death:
    """The kernel killed the whole container for memory, as the API server shows it."""

    number: int
    """Which death of this container in this pod it was, counted from 1."""
    at: datetime


@dataclass(frozen=True, slots=True)
class Eviction:
    """The kubelet ended a whole pod because its node was short of memory."""

    at: datetime
    why: str
    """In its words."""


@dataclass(frozen=True, slots=True)
class Slots:
    """What a Celery worker says of itself."""

    processes: int
    """Processes of its pool: the tasks it can run at once."""
    prefetch: int
    """Messages it takes from the broker at once."""
    busy: int
    """Tasks that run."""
    autoscaled: bool
    """worker_autoscale is on: slots can be set both ways while it runs."""
    queues: tuple[str, ...]
    """Queues it serves."""
    oldest: float
    """Seconds that its longest running task has run; 0 when none runs."""
    tasks: Mapping[str, int] = field(default_factory=dict)
    """Airflow's tasks that run, as `dag.task`, and how many of each; as far as their messages say it."""
    begun: int | None = None
    """Tasks that have begun since its start."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a workload, as far as its tuned container goes."""

    name: str
    uid: str
    created: datetime
    memory: Memory
    """What its spec asks for the container."""
    running: Memory | None
    """What is in force for the container; `None` while it does not run."""
    container_id: str = ""
    started: datetime | None = None
    """Since when its container runs; `None` while it does not."""
    deaths: int = 0
    """Times the container has died, for any reason."""
    death: Death | None = None
    """The last death, where it was for memory."""
    eviction: Eviction | None = None
    """Why it has ended, where its node was short of memory."""
    crash: Crash | None = None
    """The last death of one of its containers, where it was not for memory."""
    guaranteed: bool = False
    """Its QoS class is Guaranteed."""
    ending: bool = False
    """It is being deleted, or has ended."""
    decision: str | None = None
    """The decision that shaped it at birth, from its annotation."""
    resized: bool = False
    """We have resized its container's memory in place before."""
    foreign: bool = False
    """Somebody else has resized its container's memory in place since."""
    restarts_on_resize: bool = False
    """Its container's resizePolicy restarts it for a change of memory: it is never resized in place."""
    cpu: Cpu = Cpu()
    """What its spec asks for the container."""
    running_cpu: Cpu | None = None
    """What is in force for the container; `None` while it does not run."""
    resized_cpu: bool = False
    """We have resized its container's CPU in place before: that makes its memory no matter of ours."""
    foreign_cpu: bool = False
    """Somebody else has resized its container's CPU in place since."""
    restarts_for_cpu: bool = False
    """Its container's resizePolicy restarts it for a change of CPU: that is never resized in place."""
    resize_problem: str = ""
    """Why the kubelet has not done a resize, in its words."""
    deferred: datetime | None = None
    """Since when a resize waits for room on the node."""
    usage: Usage = Usage()
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it was born with of the variables that may be set."""
    ready: bool = True
    """It counts as available."""
    held: str = ""
    """The annotation that asks that it not be disrupted, with its value."""
    slots: Slots | None = None
    """What the Celery worker in it says of itself; `None` where that is not known."""
    node: str = ""
    """The node it is on; empty where it has none yet."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server did not let a workload have a pod."""

    at: datetime
    why: str
    """In its words."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment or StatefulSet of the Airflow deployment, with the container that is tuned."""

    target: str
    """`scheduler`, `dag-processor`, `triggerer`, `api-server` or `worker/<name>`."""
    component: str
    """Value of its component label."""
    kind: str
    name: str
    container: str
    pod_labels: Mapping[str, str]
    """What its selector asks of a pod; no other workload's pods carry all of them."""
    requests: Mapping[str, str]
    """Requests of the container in the template, as written."""
    limits: Mapping[str, str]
    """Limits of the container in the template, as written."""
    template: Memory
    pods: tuple[Pod, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the variables that may be set: what the template says."""
    referenced: frozenset[str] = frozenset()
    """Those of them that the template sets by reference: they are the user's alone."""
    names: frozenset[str] = frozenset()
    """Names of all variables that the template sets."""
    probe: Probe | None = None
    """Its liveness probe, where that starts an Airflow of its own."""
    stated: Values = Values()
    """CPU, slots, interval and processes as the template states them."""
    queues: tuple[str, ...] = ("default",)
    """Celery queues its workers serve, as its command and environment say."""
    replicas: int = 1
    """Pods it should have."""
    cpu_limit: float | None = None
    """Cores."""
    grace: int = 30
    """Seconds that a pod is given to end."""
    chart: str = ""
    """The Helm chart that made it, with its version."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Its own labels."""
    refusal: Refusal | None = None
    """Why it has fewer pods than it should, where the API server refuses them."""
    beside: Memory = Memory()
    """What the other containers of its template ask for together."""
    surge: int = 0
    """Pods beyond `replicas` that a rollout makes at least."""

    def cores_of(self, pod: Pod) -> float | None:
        """Cores of a pod's CPU limit: the one in force, where that is known, else the template's; `None`: no limit."""
        if pod.running_cpu is None:
            return self.cpu_limit
        return None if pod.running_cpu.limit is None else pod.running_cpu.limit / 1000

    @property
    def label(self) -> str:
        """Kind and name."""
        return f"{self.kind}/{self.name}"

    @property
    def unit(self) -> str:
        """What it has several of, for a sentence: pods, or, as a service of a Docker engine, containers."""
        return "container" if self.kind == SERVICE else "pod"

    @property
    def values(self) -> Values:
        """All that the template says."""
        return replace(self.stated, memory=self.template)

    @property
    def living(self) -> tuple[Pod, ...]:
        """The pods that are not on their way out."""
        return tuple(pod for pod in self.pods if not pod.ending)


@dataclass(frozen=True, slots=True)
class TaskPod:
    """A pod in which the KubernetesExecutor runs one try of one task."""

    name: str
    dag: str
    task: str
    created: datetime
    memory: Memory
    """What its spec asks for the container that runs the task."""
    death: Death | None = None
    """Its end, where the kernel killed that container for memory."""
    unplaced: str = ""
    """Why no node takes it, in the scheduler's words; empty where one has, or may at once."""


class MetricsState(StrEnum):
    """What became of the questions to the metrics source."""

    FRESH = "MetricsFresh"
    STALE = "MetricsStale"
    UNAVAILABLE = "MetricsUnavailable"
    ABSENT = "MetricsAbsent"
    CURRENT = "CurrentOnly"
    """As one of the two before, and metrics.k8s.io tells what is in use at this moment."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """How trustworthy the samples of this turn are."""

    state: MetricsState
    message: str
    """A sentence for the condition."""
    at: datetime | None = None
    """When the newest sample was taken."""


@dataclass(frozen=True, slots=True)
class Ran:
    """Tasks that ran in a worker shortly before something in it was killed for memory."""

    at: datetime
    """When the kill was seen."""
    tasks: Mapping[str, int]
    """As `dag.task`, and how many of each at once."""
    here: bool
    """In that worker, as it said itself; else in its queues, as Airflow says."""
    killed: tuple[str, ...] = ()
    """Tasks whose process SIGKILL ended, as Airflow 2 names them."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at one Airflow deployment."""

    at: datetime
    workloads: tuple[Workload, ...]
    metrics: Metrics
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Changes of running pods that were refused in the last turn: pod name -> why."""
    evictions: Mapping[str, str] = field(default_factory=dict)
    """Restarts that were refused in the last turn: pod name -> why."""
    line: str | None = None
    """Airflow's major version, `2` or `3`; `None` where it cannot be told."""
    airflow: Airflow = Airflow()
    """What Airflow says of itself; asked only where slots or parsing are tuned."""
    naming: str = ""
    """How its metrics are named; empty where that is not known."""
    broker: str | None = None
    """What is wrong with the Celery broker; empty: it answers; `None`: the policy names none."""
    elder: str = ""
    """The policy that acts on this Airflow instead of the one that is looked at."""
    autoscalers: tuple[Autoscaler, ...] = ()
    """What else changes workloads of the namespace."""
    histories: Mapping[str, History] = field(default_factory=dict)
    """The memory of past hours, by target; by `<target> tasks` the most tasks at once of a group of workers; by
    `<target> cpu` the CPU of those whose CPU the policy names, in thousandths of a core."""
    reading: bool = False
    """The metrics source is still asked for the past: the histories are not all that is known."""
    usual: bool = True
    """Nothing piles tasks up that is no usual demand."""
    ran: Mapping[str, Ran] = field(default_factory=dict)
    """What ran in workers before their last kill, by UID of the pod; as far as it was seen."""
    executors: Executors = UNKNOWN
    """What runs the tasks."""
    task_pods: tuple[TaskPod, ...] = ()
    """Pods of the KubernetesExecutor's tasks that are there."""
    admission: bool = True
    """New pods are shaped at their creation; else, as with containers of a Docker engine, what runs is changed."""
    room: Room = Room()
    """What the namespace and the nodes have room for."""
    budget: Budget | None = None
    """Changes that the operator may still make; `None`: they are not counted."""
    due: tuple[DueRun, ...] = ()
    """Runs that are due within a day, of DAGs that the last days do not show."""
    calendar: str | None = None
    """What is wrong with Airflow's REST API; empty: it answers; `None`: the policy names none, or it is not asked."""
    task_runs: tuple[TaskRuns, ...] = ()
    """What is known of pods of two weeks, by task."""
    task_groups: int | None = None
    """Of how many tasks pods are known."""
    task_names: Mapping[str, TaskName] = field(default_factory=dict)
    """Tasks whose pods were seen, by what the names of those begin with."""

    def of(self, component: str) -> tuple[Workload, ...]:
        """The workloads of a component."""
        return tuple(item for item in self.workloads if item.component == component)

    @property
    def schedulers(self) -> int:
        """Schedulers that there are, one at least: each has as many tasks as core.parallelism says."""
        return max(1, sum(len(item.living) for item in self.of("scheduler")))

    def within(self, at: datetime | None, span: timedelta) -> bool:
        """Something was less than so long ago; not where it is not known to have been at all."""
        return at is not None and self.at - at < span

    def autoscalers_of(self, workload: Workload) -> tuple[Autoscaler, ...]:
        """What else changes this workload."""
        return tuple(item for item in self.autoscalers if item.target == workload.label)

    def memory_ruler(self, workload: Workload) -> str:
        """The autoscaler that changes the memory of this workload's running pods; empty where none does."""
        found = (item for item in self.autoscalers_of(workload) if item.rules_memory(workload.container))
        return next((f"{item.kind} {item.name}" for item in found), "")

    def cpu_ruler(self, workload: Workload) -> str:
        """The autoscaler that changes this workload's CPU, or goes by it as a share; empty where none does."""
        found = (item for item in self.autoscalers_of(workload) if item.rules_cpu(workload.container))
        return next((f"{item.kind} {item.name}" for item in found), "")


class Severity(StrEnum):
    """How bad a finding is."""

    CRITICAL = "Critical"
    WARNING = "Warning"
    INFO = "Info"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, with its numbers."""

    reason: str
    severity: Severity
    target: str
    message: str
    since: datetime


class Kind(StrEnum):
    """Who died of memory: the whole container, which the API server reports, or one process, which it does not."""

    CONTAINER = "Container"
    PROCESS = "Process"


@dataclass(frozen=True, slots=True)
class Kill:
    """One or more out-of-memory kills of one container that no decision has answered yet."""

    pod: Pod
    kind: Kind
    count: int
    at: datetime
    """When it happened (container), or when the count was taken (process)."""
    limit: int | None
    """The limit it happened under; `None` where there was none."""
    of_node: bool = False
    """The container was well below its limit: the node ran out of memory, not the container."""


@dataclass(frozen=True, slots=True)
class Change:
    """One bounded change of one target."""

    target: str
    decision: str
    reason: str
    before: Values
    after: Values
    message: str


@dataclass(frozen=True, slots=True)
class TargetDecision:
    """What one target should have, and why."""

    workload: Workload
    bounds: str
    """The part of the spec whose bounds hold, e.g. `workers/default`."""
    desired: Values
    why: str
    answered: tuple[api.Answered, ...] = ()
    change: Change | None = None
    """What changes now; in mode Recommend only what is recommended changes."""
    tuned: api.Tuned | None = None
    """What new pods get; `None`: what the template says."""
    slots_decided: bool = False
    """The number of slots is ours, not only the template's: workers that run are held to it."""
    rooms: Mapping[str, int] = field(default_factory=dict)
    """By pod: the most that its limit may be raised to, in bytes, where its node has no more."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of deciding: the whole desired state, and what of it is new."""

    targets: tuple[TargetDecision, ...]
    released: tuple[Change, ...] = ()
    """Targets that are given back to their template."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is new, in the order of the targets."""
        return tuple(target.change for target in self.targets if target.change) + self.released
