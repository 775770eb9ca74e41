"""Small worlds for the pure core: specs, pods, workloads and observations out of few words. Sizes are in MiB."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from airflow_tuner import api, restarts, status, telemetry
from airflow_tuner.model import (
    Death,
    Decision,
    Finding,
    Memory,
    Metrics,
    MetricsState,
    Observation,
    Pod,
    Sample,
    Slots,
    TargetDecision,
    Usage,
    Workload,
)
from airflow_tuner.outcome import outcome
from airflow_tuner.past import cpu_from_tuned, from_tuned

MI = 2**20
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SHARES = {"cpu", "cpu_of_rounds", "throttled", "node_cpu"}


def spec(low: str = "512Mi", high: str = "4Gi", *, mode: str = "Enforce", **fields: Any) -> api.Spec:  # noqa: ANN401 - any field of the spec
    """A policy for the default worker; `fields` as a user writes them."""
    workers = [{"name": "default", "memory": {"min": low, "max": high}}]
    return api.Spec.model_validate({"mode": mode, "airflow": {"release": "airflow"}, "workers": workers, **fields})


def slots_spec(
    low: int = 1,
    high: int = 16,
    *,
    memory_max: str = "4Gi",
    memory_min: str = "512Mi",
    **fields: Any,  # noqa: ANN401 - any field of the spec
) -> api.Spec:
    """A policy for the slots of the default worker, which is reached over the broker."""
    limits = {"min": memory_min, "max": memory_max}
    workers = [{"name": "default", "memory": limits, "concurrency": {"min": low, "max": high}}]
    return spec(**{"workers": workers, "celery": {"brokerSecretRef": {"name": "broker-url"}}, **fields})


def parsing_spec(
    low: int = 15,
    high: int = 600,
    *,
    processes: tuple[int, int] | None = None,
    cpu: str = "500m",
    **fields: Any,  # noqa: ANN401 - any field of the spec
) -> api.Spec:
    """A policy for how the dag-processor parses."""
    parsing: dict[str, Any] = {"intervalSeconds": {"min": low, "max": high}, "cpu": cpu}
    if processes is not None:
        parsing["processes"] = {"min": processes[0], "max": processes[1]}
    bounds = {"memory": {"min": "512Mi", "max": "4Gi"}, "parsing": parsing}
    return spec(**{"workers": [], "dagProcessor": bounds, **fields})


def memory(request: int | None, limit: int | None) -> Memory:
    """A request and a limit in MiB."""
    return Memory(None if request is None else request * MI, None if limit is None else limit * MI)


def usage(*, kills: int | None = None, before: int | None = None, at: datetime = NOW, **values: float | None) -> Usage:
    """What the metrics say: the fields of `Usage`, sizes in MiB, CPU in cores, the others as shares."""
    known = {name: value for name, value in values.items() if value is not None}
    found = {name: Sample(value if name in SHARES else value * MI, at) for name, value in known.items()}
    counts = {"process_kills": kills, "process_kills_before": before}
    return Usage(**found, **{name: Sample(count, at) for name, count in counts.items() if count is not None})


def pod(
    name: str = "airflow-worker-0",
    *,
    request: int | None = 512,
    limit: int | None = 1024,
    died: datetime | None = None,
    **fields: Any,  # noqa: ANN401 - any field of the pod
) -> Pod:
    """A running pod; `died` is when its last container was killed for memory."""
    values = memory(request, limit)
    known: dict[str, Any] = {
        "uid": str(uuid5(NAMESPACE_OID, name)),
        "created": NOW - timedelta(days=1),
        "memory": values,
        "running": values,
        "container_id": uuid5(NAMESPACE_OID, name).hex,
        "deaths": 0 if died is None else 1,
        "death": None if died is None else Death(int(fields.get("deaths", 1)), died),
    }
    return Pod(name=name, **{**known, **fields})


def worker(*pods: Pod, request: int | None = 512, limit: int | None = 1024, **fields: Any) -> Workload:  # noqa: ANN401 - any field of the workload
    """The default worker of the release `airflow`, with these values in its template."""
    known: dict[str, Any] = {
        "target": "worker/default",
        "component": "worker",
        "kind": "StatefulSet",
        "name": "airflow-worker",
        "container": "worker",
        "pod_labels": {"release": "airflow", "component": "worker"},
        "requests": {} if request is None else {"memory": f"{request}Mi"},
        "limits": {} if limit is None else {"memory": f"{limit}Mi"},
        "template": memory(request, limit),
    }
    return Workload(**{**known, "pods": pods, **fields})


def scheduler(*pods: Pod, **fields: Any) -> Workload:  # noqa: ANN401 - any field of the workload
    """The scheduler of the release."""
    known = {"target": "scheduler", "component": "scheduler", "kind": "Deployment", "name": "airflow-scheduler"}
    labels = {"release": "airflow", "component": "scheduler"}
    return worker(*pods, **{**known, "container": "scheduler", "pod_labels": labels, **fields})


def dag_processor(*pods: Pod, **fields: Any) -> Workload:  # noqa: ANN401 - any field of the workload
    """The dag-processor of the release."""
    known = {"target": "dag-processor", "component": "dag-processor", "name": "airflow-dag-processor"}
    return scheduler(*pods, **{**known, "container": "dag-processor", **fields})


def slots(processes: int, busy: int | None = None, **fields: Any) -> Slots:  # noqa: ANN401 - any field of the slots
    """What a worker says of itself; all its slots are busy where nothing else is told."""
    known: dict[str, Any] = {
        "processes": processes,
        "prefetch": processes,
        "busy": processes if busy is None else busy,
        "autoscaled": True,
        "queues": ("default",),
        "oldest": 0.0,
    }
    return Slots(**{**known, **fields})


def tasks(waiting: int = 0, running: int = 0, *, duration: float | None = 3.0, **fields: Any) -> telemetry.Tasks:  # noqa: ANN401 - any field of the tasks
    """How tasks flow, all in the default pool and queue."""
    pool = telemetry.Pool("default_pool", open=128 - running, running=running, queued=waiting, scheduled=0)
    queued, busy = {"default": waiting}, {"default": running}
    known: dict[str, Any] = {"pools": (pool,), "queued": queued, "running": busy, "duration": duration}
    return telemetry.Tasks(**{**known, **fields})


def airflow(
    found: telemetry.Tasks | None = None, parsing: telemetry.Parsing | None = None, problem: str = ""
) -> telemetry.Airflow:
    """What Airflow says of itself."""
    return telemetry.Airflow(found, parsing, problem)


def observed(
    *workloads: Workload,
    at: datetime = NOW,
    state: MetricsState = MetricsState.FRESH,
    message: str = "The metrics source answers, and its samples are fresh.",
    refusals: Mapping[str, str] | None = None,
    **fields: Any,  # noqa: ANN401 - any field of the observation
) -> Observation:
    """One look, at an Airflow 3."""
    return Observation(at, workloads, Metrics(state, message, at), refusals or {}, **{"line": "3", **fields})


@dataclass(frozen=True)
class Turn:
    """What one turn of the loop came to."""

    seen: Observation
    findings: tuple[Finding, ...]
    decision: Decision
    status: api.Status
    waiting: tuple[restarts.Waiting, ...] = ()

    @property
    def target(self) -> TargetDecision:
        """The only target."""
        (target,) = self.decision.targets
        return target

    @property
    def limit(self) -> int:
        """The desired limit of the only target, in MiB."""
        return (self.target.desired.memory.limit or 0) // MI

    @property
    def request(self) -> int:
        """The desired request of the only target, in MiB."""
        return (self.target.desired.memory.request or 0) // MI

    @property
    def reasons(self) -> list[str]:
        """Why anything changed."""
        return [change.reason for change in self.decision.changes]

    @property
    def found(self) -> list[str]:
        """The reasons of the findings."""
        return [finding.reason for finding in self.findings]


def turn(policy: api.Spec, seen: Observation, prior: api.Status | None = None, *, paused: bool = False) -> Turn:
    """One turn: diagnose, decide, render. The status passes through the API server's form, as it does for real."""
    prior = prior or api.Status()
    came = outcome(policy, seen, prior, identity="policy-uid", paused=paused, generation=1)
    written = api.Status.model_validate(status.as_written(came.status))
    return Turn(came.seen, came.findings, came.decision, written, came.waiting)


def applied(last: Turn, *, seconds: float = 0) -> Observation:
    """The same world, so much later, with the decided values in every running pod that is ours to change."""
    workloads = tuple(
        replace(target.workload, pods=tuple(changed(pod, target) for pod in target.workload.pods))
        for target in last.decision.targets
    )
    decided = {target.workload.target for target in last.decision.targets}
    others = tuple(workload for workload in last.seen.workloads if workload.target not in decided)
    return replace(last.seen, at=last.seen.at + timedelta(seconds=seconds), workloads=workloads + others)


def changed(pod: Pod, target: TargetDecision) -> Pod:
    """The pod after what can be changed while it runs."""
    after = resized(pod, target) if status.needs_resize(target, pod.name) else pod
    wanted = target.desired.concurrency
    if wanted is None or pod.slots is None or not status.needs_slots(target, pod):
        return after
    return replace(after, slots=replace(pod.slots, processes=wanted, busy=min(pod.slots.busy, wanted)))


def reborn(last: Turn, *, seconds: float = 60) -> Observation:
    """The same world, so much later, with every pod created anew as admission shapes it."""
    at = last.seen.at + timedelta(seconds=seconds)
    workloads = tuple(
        replace(target.workload, pods=tuple(_born(pod, target, at) for pod in target.workload.pods))
        for target in last.decision.targets
    )
    return replace(last.seen, at=at + timedelta(seconds=30), workloads=workloads)


def _born(pod: Pod, target: TargetDecision, at: datetime) -> Pod:
    workload, tuned = target.workload, target.tuned
    values = from_tuned(tuned) or workload.template
    cpu = cpu_from_tuned(tuned) or workload.stated.cpu
    given = {str(item.name): item.value for item in tuned.env} if tuned is not None else {}
    environment = {**workload.environment, **given}
    decision = None if tuned is None else tuned.decision
    born = replace(pod, created=at, memory=values, running=values, cpu=cpu, running_cpu=cpu)
    return replace(born, environment=environment, decision=decision, slots=None)


def resized(pod: Pod, target: TargetDecision) -> Pod:
    """The pod after a resize in place."""
    values, cpu = status.resized(target, pod) or pod.memory, status.resized_cpu(target, pod) or pod.cpu
    return replace(
        pod,
        memory=values,
        running=values,
        resized=pod.resized or values != pod.memory,
        cpu=cpu,
        running_cpu=cpu,
        resized_cpu=pod.resized_cpu or cpu != pod.cpu,
    )


def with_pods(seen: Observation, *pods: Pod, seconds: float = 0) -> Observation:
    """The same world with its only workload's pods replaced."""
    (workload,) = seen.workloads
    later = seen.at + timedelta(seconds=seconds)
    return replace(seen, at=later, workloads=(replace(workload, pods=pods),))
