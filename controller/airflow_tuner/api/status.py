"""What the operator answers."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from airflow_tuner.api.fields import CpuQuantity, Labels, MemoryQuantity, Model, Name, Sentence, Time, keyed


class Condition(Model):
    """One observation about the policy, as in every Kubernetes object."""

    type: Annotated[str, Field(max_length=64)]
    """Ready, MetricsAvailable, AirflowMetricsAvailable, BrokerAvailable, CalendarAvailable, TargetsFound, Converged,
    AdmissionEffective or RestartNeeded."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    observed_generation: int
    """Generation of the spec this was observed for."""
    last_transition_time: Time
    """When the status last changed."""
    reason: Annotated[str, Field(max_length=64)]
    """One CamelCase word for programs."""
    message: Sentence
    """A sentence for people."""


class FindingStatus(Model):
    """Something that is wrong, or was within the last hour."""

    reason: Annotated[str, Field(max_length=64)]
    """One CamelCase word; each has a page in the documentation."""
    severity: Literal["Critical", "Warning", "Info"]
    """Critical: Airflow suffers now. Warning: it will, or we cannot help. Info: worth knowing."""
    target: Name
    """What it is about: `worker/default`, `scheduler`, or `policy`."""
    message: Sentence
    """What was seen, with its numbers, what is done about it, and advice."""
    since: Time
    """When it began, as far as we saw."""


class Values(Model):
    """What a container is set to."""

    request: MemoryQuantity | None = None
    """Memory request; absent: none is set."""
    limit: MemoryQuantity | None = None
    """Memory limit; absent: none is set."""
    cpu_request: CpuQuantity | None = None
    """CPU request; absent: none is set, or the policy names no bounds of CPU for it."""
    cpu_limit: CpuQuantity | None = None
    """CPU limit; absent: none is set, or the policy names no bounds of CPU for it."""
    concurrency: int | None = None
    """Slots of each worker; absent: not known, or not a worker."""
    parsing_interval_seconds: int | None = None
    """Seconds between two parses of a DAG file; absent: not stated in the container, or no dag-processor."""
    parsing_processes: int | None = None
    """Files that are parsed at once; absent: not stated in the container, or no dag-processor."""


class Answered(Model):
    """Out-of-memory kills of one pod that a decision has already answered, so that none is answered twice."""

    pod: Name
    """Name of the pod."""
    uid: Annotated[str, Field(max_length=64)]
    """UID of the pod."""
    deaths: Annotated[int, Field(ge=0)] = 0
    """Deaths of the whole container that were answered, counted as the API server counts restarts."""
    container_id: Annotated[str, Field(max_length=128)] = ""
    """Container whose process kills were answered."""
    process_kills: Annotated[int, Field(ge=0)] = 0
    """Kills of single processes in that container that were answered, as container_oom_events_total counts them."""


class Moments(Model):
    """When what of a target was last changed: cooldowns rest on it, and the history keeps only ten changes."""

    any: Time | None = None
    """Last change of any kind."""
    memory: Time | None = None
    """Last change of its memory."""
    cpu: Time | None = None
    """Last change of its CPU."""
    slots: Time | None = None
    """Last change of its slots."""
    parsing: Time | None = None
    """Last change of how DAG files are parsed."""
    out_of_memory: Time | None = None
    """Last answer to an out-of-memory kill."""
    limit_before: MemoryQuantity | None = None
    """Memory limit until that answer."""
    memory_bound: Time | None = None
    """Last time that slots were taken for a kill at the policy's largest limit."""
    endured: Values | None = None
    """What was decided then."""
    refused: Time | None = None
    """Last time that the API server refused pods with what was decided."""
    pressed: Time | None = None
    """Last time that a request was raised because the node was short of memory."""
    template: Time | None = None
    """Last time that the user changed the template."""


class Target(Model):
    """One workload this policy tunes, for people."""

    name: Name
    """`scheduler`, `dag-processor`, `triggerer`, `api-server`, or `worker/<name>`."""
    workload: Name
    """Kind and name of the workload."""
    container: Name
    """The container that is tuned."""
    pods: int
    """Pods of the workload that exist."""
    template: Values
    """What the workload's template says."""
    running: Values
    """The smallest values in force in a running pod."""
    recommended: Values
    """What the operator would have, or has, in force."""
    peak: MemoryQuantity | None = None
    """Largest memory seen in a running container since its start; absent when not known."""
    why: Sentence
    """How the recommended values came to be."""
    changed: Moments | None = None
    """When what of it was last changed."""
    answered: Annotated[list[Answered], Field(max_length=1000, json_schema_extra=keyed("uid"))] = []
    """Out-of-memory kills that were already answered, by pod."""


class TaskSize(Model):
    """What is recommended for one task that has pods of its own."""

    dag: Name
    """Its DAG."""
    task: Name
    """Its name in the DAG."""
    pods: Name
    """What the names of its pods begin with."""
    reason: Annotated[str, Field(max_length=64)]
    """OutOfMemory, LimitTooSmall, LimitsMissing, RequestTooSmall, Overprovisioned, or NotKnown: what it has is not."""
    present: Values | None = None
    """What its newest pod had; absent: not known."""
    recommended: Values
    """What its pods should have."""
    why: Sentence
    """What that rests on."""


class EnvName(StrEnum):
    """The environment that may be set: Airflow's options for what is tuned, by the names of both lines."""

    CONCURRENCY = "AIRFLOW__CELERY__WORKER_CONCURRENCY"
    AUTOSCALE = "AIRFLOW__CELERY__WORKER_AUTOSCALE"
    INTERVAL = "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"
    PROCESSES = "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES"
    INTERVAL_2 = "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL"
    PROCESSES_2 = "AIRFLOW__SCHEDULER__PARSING_PROCESSES"


class EnvVar(Model):
    """A variable of the environment that a new pod gets."""

    name: EnvName
    """Its name."""
    value: Annotated[str, Field(max_length=16, pattern=r"^[0-9]{1,6}(,[0-9]{1,6})?$")]
    """Its value."""


class BaselineVar(Model):
    """A variable of the environment in the template."""

    name: EnvName
    """Its name."""
    value: Annotated[str, Field(max_length=256)] = ""
    """Its value."""


class Baseline(Model):
    """The container as a pod is born with it from the template. A pod that differs is not touched."""

    requests: Annotated[dict[str, Annotated[str, Field(max_length=32)]], Field(max_length=16)] = {}
    """Requests in the template."""
    limits: Annotated[dict[str, Annotated[str, Field(max_length=32)]], Field(max_length=16)] = {}
    """Limits in the template."""
    env: Annotated[list[BaselineVar], Field(max_length=6, json_schema_extra=keyed("name"))] = []
    """Variables in the template of those that may be set."""


class Sizes(Model):
    """Resources that are set at admission."""

    memory: MemoryQuantity
    """Memory."""
    cpu: CpuQuantity | None = None
    """CPU; absent: it is left as the template says."""


class Tuned(Model):
    """What new pods of one workload get at admission, where it is held against the spec's bounds once more."""

    target: Name
    """`scheduler`, `worker/default`, ..."""
    component: Annotated[str, Field(min_length=1, max_length=63)]
    """Value of the pod's component label."""
    bounds: Annotated[str, Field(min_length=1, max_length=80)]
    """The part of the spec that bounds it: `scheduler`, `dagProcessor`, `triggerer`, `apiServer`, `workers/<name>`."""
    decision: Annotated[str, Field(min_length=1, max_length=63)]
    """Identity of the decision, as in the history and on the pods it shaped."""
    since: Time
    """When this was decided."""
    container: Name
    """The container that is set."""
    workload: Name
    """Kind and name of the workload that owns the pods."""
    pod_labels: Annotated[Labels, Field(min_length=1)]
    """Labels of the workload's pods."""
    baseline: Baseline
    """The template's resources."""
    requests: Sizes
    """Requests a new pod gets."""
    limits: Sizes
    """Limits a new pod gets."""
    env: Annotated[list[EnvVar], Field(max_length=6, json_schema_extra=keyed("name"))] = []
    """Environment a new pod gets; a variable that the pod sets by reference is left alone."""


class Change(Model):
    """One change the operator made, or released."""

    time: Time
    """When it was decided."""
    decision: Annotated[str, Field(max_length=63)]
    """Identity of the decision."""
    target: Name
    """What was changed."""
    reason: Annotated[str, Field(max_length=64)]
    """OutOfMemory, NodeMemoryPressure, BelowMinimum, LimitsMissing, MemoryForecast, MemoryReleased, CpuThrottled,
    CpuUsed, CpuReleased, SlotsExhausted, SlotsReturned, SlotsForecast, SlotsReleased, SlotsIdle, MemoryBound,
    ParsingOverloaded, DagsStale, ParsingEager, Recommended, BoundsChanged, TemplateChanged, PodsRefused or Released."""
    from_: Annotated[Values, Field(alias="from")]
    """Values before."""
    to: Values
    """Values after."""
    message: Sentence
    """What was changed and why, with the numbers."""


class Status(Model):
    """What the operator saw, thinks and did. A view: the operator rebuilds it."""

    observed_generation: int = 0
    """Generation of the spec that this status answers."""
    summary: Annotated[str, Field(max_length=256)] = ""
    """The state in a few words."""
    last_change: Annotated[str, Field(max_length=256)] = ""
    """The newest change in a few words."""
    airflow_version: Annotated[str, Field(max_length=8)] = ""
    """Major version of this Airflow, as stated or detected."""
    metrics_naming: Annotated[str, Field(max_length=16)] = ""
    """How this Airflow's metrics are named (Chart, Tagged or OpenTelemetry), as stated or detected."""
    airflow_executor: Annotated[str, Field(max_length=256)] = ""
    """What runs this Airflow's tasks, as stated or detected; absent: not known, and taken for the CeleryExecutor."""
    airflow_executor_source: Annotated[str, Field(max_length=320)] = ""
    """Where that is known from."""
    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra=keyed("type"))] = []
    """Ready sums up the others."""
    findings: Annotated[list[FindingStatus], Field(max_length=20)] = []
    """What is wrong, worst first."""
    targets: Annotated[list[Target], Field(max_length=80, json_schema_extra=keyed("name"))] = []
    """The workloads, with what they have, what they should have, and why."""
    tuned: Annotated[list[Tuned], Field(max_length=80, json_schema_extra=keyed("target"))] = []
    """What new pods get."""
    history: Annotated[list[Change], Field(max_length=10)] = []
    """The last ten changes, newest first."""
    tasks: Annotated[list[TaskSize], Field(max_length=20, json_schema_extra=keyed("pods"))] = []
    """Tasks with pods of their own that should have other memory: the worst, then the largest savings."""
    tasks_summary: Annotated[str, Field(max_length=256)] = ""
    """Of how many tasks that is so, and how many fit."""
    pod_template: Values | None = None
    """What the pod template should give tasks that say nothing: it fits those of nine of ten runs."""
    helm_values: Annotated[str, Field(max_length=8192)] = ""
    """In mode Recommend: what is recommended, as a values file for the official Airflow chart."""
