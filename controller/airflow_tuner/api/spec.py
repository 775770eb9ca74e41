"""What a user writes."""

from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, ConfigDict, Field

from airflow_tuner.api.fields import CpuQuantity, Labels, MemoryQuantity, Model, keyed, rules


class Mode(StrEnum):
    """What the operator may do."""

    RECOMMEND = "Recommend"
    ENFORCE = "Enforce"


class Line(StrEnum):
    """The Airflow line: its major version. They differ in the names of options and metrics."""

    TWO = "2"
    THREE = "3"


class Selector(Model):
    """Labels that workloads and their pods must carry."""

    match_labels: Annotated[Labels, Field(min_length=1)]
    """Labels that every workload of this Airflow, and every pod of it, carries."""


EXECUTOR = r"^[A-Za-z0-9_.:]*Executor( *, *[A-Za-z0-9_.:]*Executor)*$"
"""Names of executors as Airflow takes them: each may have a path of modules, and an alias before it."""


class Airflow(Model):
    """The Airflow deployment this policy is for: its Helm release, or labels of its own."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.release) != has(self.selector)",
                "name the Airflow deployment by exactly one of airflow.release and airflow.selector",
            )
        )
    )

    release: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Helm release of the official Airflow chart in this namespace: its workloads carry the label release=<this>.
    Beside a Docker engine, the compose project."""
    selector: Selector | None = None
    """Labels of the workloads, for an Airflow from another chart; the component is read from the label `component`
    or `app.kubernetes.io/component`."""
    version: Line | None = None
    """Airflow's major version. Absent: 3 where there is an api-server, 2 where there is a webserver."""
    executor: Annotated[str, Field(max_length=256, pattern=EXECUTOR)] | None = None
    """Airflow's option core.executor, e.g. CeleryExecutor, or LocalExecutor,KubernetesExecutor. Absent: as the
    scheduler's container, the chart's label, or Airflow's metrics say it."""

    api: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Name of this Airflow's REST API in the operator's configuration (the chart's value `airflow.apis`): what DAGs run
    next is read there, so that memory is there for those that run seldom. Absent: it is not asked."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels that a workload of this deployment carries."""
        if self.selector is not None:
            return dict(self.selector.match_labels)
        return {"tier": "airflow", "release": self.release or ""}


class Naming(StrEnum):
    """How Airflow's own metrics are named."""

    CHART = "Chart"
    TAGGED = "Tagged"
    OPENTELEMETRY = "OpenTelemetry"


class Metrics(Model):
    """Where the metrics of this deployment are, and how old they may be."""

    source: Annotated[str, Field(min_length=1, max_length=63)] = "default"
    """Name of a metrics source of the operator's configuration (the chart's value `metrics.sources`)."""
    match_labels: Labels = {}
    """Labels that single out this cluster's series where one Prometheus holds several clusters, e.g. cluster: prod."""
    airflow_match_labels: Labels = {}
    """Labels that, beside matchLabels, single out this Airflow's own series (airflow_*) where one Prometheus holds
    those of several, e.g. namespace: airflow."""
    naming: Naming | None = None
    """How Airflow's own metrics are named: Chart (StatsD through the official chart's exporter), Tagged (StatsD with
    tags) or OpenTelemetry; absent: as is seen."""
    stale_after_seconds: Annotated[int, Field(ge=30, le=3600)] = 300
    """Age in seconds from which a sample no longer counts: what rests on it is then not changed."""
    window_seconds: Annotated[int, Field(ge=30, le=3600)] = 300
    """Seconds over which rates are averaged (CPU, task durations, parsing); at least four scrape intervals.
    Those of parsing are averaged over two rounds, where that is longer."""


class Objectives(Model):
    """What Airflow should reach; memory, slots and parsing are tuned to it."""

    queue_lag_seconds: Annotated[int, Field(ge=5, le=86400)] = 30
    """Seconds a task that could run may wait for a worker's slot."""
    dag_freshness_seconds: Annotated[int, Field(ge=10, le=86400)] = 60
    """Seconds after which a change of a DAG file should have been parsed."""
    days_per_out_of_memory: Annotated[int, Field(ge=1, le=3650)] = 365
    """Days in which a container may run out of memory once: the memory limit that is foreseen for the coming hours
    holds for so long, as far as its history tells. Fewer days ask for less memory, and risk more kills."""


class Memory(Model):
    """Bounds of a container's memory. The operator sets neither its request nor its limit outside of them."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "quantity(string(self.min)).compareTo(quantity(string(self.max))) <= 0",
                "memory.min must not exceed memory.max",
            ),
            ("quantity(string(self.min)).compareTo(quantity('0')) > 0", "memory.min must be more than 0"),
        )
    )

    min: MemoryQuantity
    """Smallest memory request and limit the operator may set, e.g. 512Mi."""
    max: MemoryQuantity
    """Largest memory limit the operator may set, e.g. 4Gi. An out-of-memory kill at this limit is reported, and the
    limit stays."""
    limit_equals_request: bool = False
    """Whether the request is always as large as the limit, which reserves every rare peak; so it is kept in any case
    for pods that are Guaranteed."""


class Cpu(Model):
    """Bounds of a container's CPU. Neither its request nor its limit is set outside of them, and no limit is added."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "quantity(string(self.min)).compareTo(quantity(string(self.max))) <= 0",
                "cpu.min must not exceed cpu.max",
            ),
            ("quantity(string(self.min)).compareTo(quantity('0')) > 0", "cpu.min must be more than 0"),
        )
    )

    min: CpuQuantity
    """Smallest CPU request and limit the operator may set, e.g. 250m."""
    max: CpuQuantity
    """Largest CPU request and limit the operator may set, e.g. 2."""


class Component(Model):
    """Bounds for one component. A component that is absent from the policy is never touched."""

    memory: Memory
    """Bounds of the memory of the component's main container."""
    cpu: Cpu | None = None
    """Bounds of the CPU of the component's main container; absent: never touched."""


class Interval(Model):
    """Bounds of the parsing interval in seconds."""

    model_config = ConfigDict(
        json_schema_extra=rules(("self.min <= self.max", "intervalSeconds.min must not exceed intervalSeconds.max"))
    )

    min: Annotated[int, Field(ge=1, le=86400)]
    """Smallest number of seconds between two parses of a DAG file, e.g. 15."""
    max: Annotated[int, Field(ge=1, le=86400)]
    """Largest number of seconds between two parses of a DAG file, e.g. 600."""


class Processes(Model):
    """Bounds of the number of parsing processes."""

    model_config = ConfigDict(
        json_schema_extra=rules(("self.min <= self.max", "processes.min must not exceed processes.max"))
    )

    min: Annotated[int, Field(ge=1, le=64)]
    """Fewest parsing processes."""
    max: Annotated[int, Field(ge=1, le=64)]
    """Most parsing processes. Each takes CPU and memory of its own."""


class Parsing(Model):
    """Bounds of how DAG files are parsed. Airflow reads these options at its start only: a change needs a restart."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("quantity(string(self.cpu)).compareTo(quantity('0')) > 0", "parsing.cpu must be more than 0")
        )
    )

    interval_seconds: Interval
    """Bounds of min_file_process_interval, the seconds between two parses of a DAG file."""
    processes: Processes | None = None
    """Bounds of parsing_processes, how many files are parsed at once; absent: never touched."""
    cpu: CpuQuantity = "500m"
    """CPU that parsing may take on average, in cores; where not both can be had, it goes before dagFreshnessSeconds."""


class DagProcessor(Component):
    """Bounds for the dag-processor."""

    parsing: Parsing | None = None
    """Bounds of how it parses DAG files; absent: never touched."""


class Concurrency(Model):
    """Bounds of the slots of one Celery worker."""

    model_config = ConfigDict(
        json_schema_extra=rules(("self.min <= self.max", "concurrency.min must not exceed concurrency.max"))
    )

    min: Annotated[int, Field(ge=1, le=1024)]
    """Fewest tasks a worker may run at once."""
    max: Annotated[int, Field(ge=1, le=1024)]
    """Most tasks a worker may run at once; memory.max may allow fewer."""


class Worker(Model):
    """Bounds for Celery worker workloads."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$")]
    """Which worker workloads this is for: `default` for the chart's <release>-worker, `<set>` for
    <release>-worker-<set>, a workload's full name, or `*` for all. The first entry that matches counts."""
    memory: Memory
    """Bounds of the memory of the worker container."""
    cpu: Cpu | None = None
    """Bounds of the CPU of the worker container; absent: never touched."""
    concurrency: Concurrency | None = None
    """Bounds of worker_concurrency, the slots of each worker; absent: never touched."""


class SecretKeyRef(Model):
    """One key of a Secret in the policy's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the Secret, e.g. airflow-broker-url."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "connection"
    """Key in it; the official chart's is connection."""


class Tasks(Model):
    """Bounds for tasks that have pods of their own (KubernetesExecutor). Nothing is changed: it is recommended."""

    memory: Memory
    """Bounds of the memory recommended for the container in which a task runs (base)."""


class Celery(Model):
    """How Celery workers are reached."""

    broker_secret_ref: SecretKeyRef
    """Secret that holds the broker's URL. The operator may read it only if the chart's value celery.brokerSecrets
    names it."""


class Cooldown(Model):
    """Least time between ordinary changes of one target. The answer to an out-of-memory kill does not wait."""

    raise_seconds: Annotated[int, Field(ge=0, le=86400)] = 600
    """Seconds after a change of a target's memory, or of its CPU, before the next ordinary raise of that."""
    lower_seconds: Annotated[int, Field(ge=300, le=604800)] = 3600
    """Seconds after a change of a target's memory, or of its CPU, before that is lowered."""
    concurrency_seconds: Annotated[int, Field(ge=0, le=86400)] = 60
    """Seconds after a change of a worker's slots before the next one."""
    parsing_seconds: Annotated[int, Field(ge=0, le=604800)] = 900
    """Seconds after a change of how DAG files are parsed before the next one."""


class MaxStep(Model):
    """Largest ordinary change at once. The answer to an out-of-memory kill is exempt; the bounds always hold."""

    memory_percent: Annotated[int, Field(ge=1, le=400)] = 50
    """Largest ordinary raise of a memory request in one change, in percent of its present value."""
    concurrency_percent: Annotated[int, Field(ge=1, le=1000)] = 100
    """Largest raise of a worker's slots in one change, in percent of their present number; one slot is always
    possible."""


TIME_OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"


def _zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError) as error:
        msg = f"{name!r} is no time zone such as UTC or Europe/Vienna"
        raise ValueError(msg) from error


class Window(Model):
    """A time of day."""

    start: Annotated[str, Field(max_length=5, pattern=TIME_OF_DAY)]
    """When it begins, e.g. 22:00."""
    end: Annotated[str, Field(max_length=5, pattern=TIME_OF_DAY)]
    """When it ends, e.g. 05:30; earlier than start means on the next day."""
    time_zone: Annotated[str, Field(max_length=64), AfterValidator(_zone)] = "UTC"
    """Time zone of both, e.g. Europe/Vienna."""


class Restarts(Model):
    """Whether pods may be restarted for what cannot be changed while they run."""

    allowed: bool = False
    """Whether the operator may evict pods: one at a time, never against a PodDisruptionBudget, and with the pod's own
    grace period. Without it, such values wait for the pod's next creation. Also for memory that pods have leaked."""
    window: Window | None = None
    """When it may; absent: at any time."""


class Changes(Model):
    """How changes are made."""

    cooldown: Cooldown = Cooldown()
    """Least time between ordinary changes of one target."""
    max_step: MaxStep = MaxStep()
    """Largest ordinary change at once."""
    restarts: Restarts = Restarts()
    """Whether pods may be restarted for what cannot be changed while they run."""
    releases: bool = True
    """Whether memory and CPU that a week of history did not take is released, in running pods too; false: it is only
    raised. In mode Recommend it is recommended in any case."""


class Spec(Model):
    """What the operator may do for one Airflow deployment."""

    mode: Mode = Mode.RECOMMEND
    """Recommend: say what should change, change nothing. Enforce: make the changes, within the bounds below."""
    airflow: Airflow
    """The Airflow deployment this policy is for, in the policy's own namespace."""
    metrics: Metrics = Metrics()
    """Where its metrics are."""
    objectives: Objectives = Objectives()
    """What memory, slots and parsing are tuned to."""
    scheduler: Component | None = None
    """Bounds for the scheduler; absent: never touched."""
    dag_processor: DagProcessor | None = None
    """Bounds for the dag-processor; absent: never touched."""
    triggerer: Component | None = None
    """Bounds for the triggerer; absent: never touched."""
    api_server: Component | None = None
    """Bounds for the api-server (Airflow 3) or webserver (Airflow 2); absent: never touched."""
    workers: Annotated[list[Worker], Field(max_length=64, json_schema_extra=keyed("name"))] = []
    """Bounds for the Celery workers, one entry per worker workload; the first entry whose name matches counts."""
    tasks: Tasks | None = None
    """Bounds for tasks that have pods of their own; absent: nothing is recommended for them."""
    celery: Celery | None = None
    """How Celery workers are reached, to change their slots while they run; absent: at their next creation."""
    changes: Changes = Changes()
    """How changes are made."""

    def component(self, name: str) -> Component | None:
        """The bounds for a component by its label (`scheduler`, `dag-processor`, ...), workers excepted."""
        return {
            "scheduler": self.scheduler,
            "dag-processor": self.dag_processor,
            "triggerer": self.triggerer,
            "api-server": self.api_server,
            "webserver": self.api_server,
        }.get(name)

    def worker(self, target: str, name: str) -> Worker | None:
        """The first entry for a worker workload by its target (`worker/default`) or its name."""
        group = target.removeprefix("worker/")
        return next((entry for entry in self.workers if entry.name in {"*", group, name}), None)

    def cpu(self, component: str, target: str, name: str) -> Cpu | None:
        """The bounds of CPU for a workload by its component, target and name."""
        entry = self.worker(target, name) if component == "worker" else self.component(component)
        return None if entry is None else entry.cpu

    @property
    def tunes_cpu(self) -> bool:
        """Some container's CPU may be changed."""
        singles = (self.scheduler, self.dag_processor, self.triggerer, self.api_server)
        return any(entry.cpu is not None for entry in (*singles, *self.workers) if entry is not None)

    @property
    def tunes_slots(self) -> bool:
        """Some worker's slots may be changed."""
        return any(entry.concurrency for entry in self.workers)

    @property
    def tunes_parsing(self) -> bool:
        """How DAG files are parsed may be changed."""
        return self.dag_processor is not None and self.dag_processor.parsing is not None
