"""One look at one Airflow deployment: the API server's objects, the metrics source's samples, the workers' answers."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta

from airflow_tuner import api, inventory, parsing, prometheus, questions, resource_metrics, signals, telemetry
from airflow_tuner.brokers import Brokers
from airflow_tuner.cluster import Cluster, path
from airflow_tuner.errors import Refused, TunerError
from airflow_tuner.executor import UNKNOWN, Executors
from airflow_tuner.model import Metrics, MetricsState, Observation, Pod, Sample, Slots, Usage, Workload
from airflow_tuner.namings import CHART, NAMINGS, chosen
from airflow_tuner.prometheus import Prometheus, moment
from airflow_tuner.quantity import MEBIBYTE
from airflow_tuner.sentence import counted
from airflow_tuner.signals import Scope, Series, Signal
from airflow_tuner.task_history import past_of_tasks

Values = Mapping[str, tuple[Series, ...]]

PATIENCE = 0.5
"""Seconds that the answer to a container's death waits for newer metrics than the last turn's."""

LARGEST = 2**24
"""MiB of memory, 16 TiB, or thousandths of a core: no container has more, whatever a source says."""

URGENT = timedelta(seconds=60)
"""A death is answered with that little patience for this long."""

APART = (*signals.CONTAINERS, signals.CORES, signals.GROWTH, questions.SLOWEST_FILES, questions.TRIGGERS)
"""Questions whose failure hides nothing else."""

SAMPLES = tuple(field.name for field in fields(Usage))
"""The signals about one container: each has the name of what it becomes."""

_ID = re.compile(r"([0-9a-f]{12,})(?:\.scope)?$")


@dataclass(frozen=True, slots=True)
class Heard:
    """What the metrics source and the workers answered."""

    values: Values
    """By the names of the signals and of their parts."""
    problem: str = ""
    """What is wrong with the answers about containers."""
    airflow_problem: str = ""
    """What is wrong with any about Airflow."""
    slots: Mapping[str, Slots] = field(default_factory=dict)
    """What the Celery workers say of themselves, by pod."""
    broker: str | None = None
    """What is wrong with the broker; `None`: it is not asked."""
    naming: str = ""
    """How Airflow's metrics are named."""
    of_airflow: bool = True
    """They were asked for."""


async def observe(
    cluster: Cluster,
    source: Prometheus | None,
    brokers: Brokers | None,
    spec: api.Spec,
    namespace: str,
    now: datetime,
    prior: api.Status | None = None,
) -> Observation:
    """Look once. Without the API server it raises; without metrics or broker it says so and goes on.

    `prior`: the last status: Airflow's version and how its metrics are named are as they were where that is not seen.
    """
    labels, known = spec.airflow.labels, prior or api.Status()
    deployments, sets, pods = await asyncio.gather(
        cluster.list(path("apps/v1", "deployments", namespace), labels),
        cluster.list(path("apps/v1", "statefulsets", namespace), labels),
        cluster.list(path("v1", "pods", namespace), labels),
    )
    # The items of a list carry no kind.
    objects = [{**item, "kind": "Deployment"} for item in deployments]
    objects += [{**item, "kind": "StatefulSet"} for item in sets]
    line = inventory.line(objects, spec.airflow.version, known.airflow_version)
    runs = inventory.executors(objects, spec.airflow.executor)
    seen = inventory.workloads(objects, pods, line)
    if any(inventory.lacks_pods(item) for item in objects):
        seen = await _refused(cluster, namespace, seen)
    urgent = any(pod.death and now - pod.death.at < URGENT for workload in seen for pod in workload.pods)
    patience = PATIENCE if urgent else None
    of_tasks = inventory.task_pods(pods)
    asks = asks_airflow(spec, runs)
    asked, (slots, broker), (task_runs, groups) = await asyncio.gather(
        _asked(source, spec, namespace, parsing.rounds(spec, seen, line), named(known), patience, airflow=asks),
        _slots(brokers if runs.celery else None, spec, namespace, seen),
        past_of_tasks(source if runs.kubernetes or of_tasks else None, spec, namespace, patience),
    )
    values, problem, airflow_problem, naming = asked
    found = observed(spec, seen, line, Heard(values, problem, airflow_problem, slots, broker, naming, asks), now, runs)
    if found.metrics.state in {MetricsState.ABSENT, MetricsState.UNAVAILABLE} and not values.get(
        signals.SAMPLED_AT.name
    ):
        waits = patience or resource_metrics.PATIENCE
        joined, metrics = await _current(cluster, spec, namespace, found.workloads, found.metrics, now, waits)
        found = replace(found, workloads=joined, metrics=metrics)
    return replace(found, task_pods=of_tasks, task_runs=task_runs, task_groups=groups)


def observed(
    spec: api.Spec,
    workloads: tuple[Workload, ...],
    line: str | None,
    heard: Heard,
    now: datetime,
    runs: Executors = UNKNOWN,
) -> Observation:
    """What the API server has, joined with what was heard. Pure. `runs`: the executors, as far as they are stated."""
    values, problem = heard.values, heard.airflow_problem
    if heard.naming:
        problem = problem or NAMINGS[heard.naming].unfit.get(line or "", "")
    limit = timedelta(seconds=spec.metrics.stale_after_seconds)
    runs = runs or telemetry.executors(values) or inventory.executors_of(workloads)
    airflow = telemetry.Airflow(problem=problem)
    if heard.of_airflow and not problem:
        airflow = telemetry.read(values, line, runs)
        if doubt := parsing.doubt(airflow.parsing, workloads, line):
            airflow = replace(airflow, parsing=None, doubt=doubt)
    return Observation(
        at=now,
        workloads=tuple(_joined(workload, values, heard.slots, now, limit) for workload in workloads),
        metrics=_trust(workloads, values, heard.problem, now, limit),
        line=line,
        naming=heard.naming,
        airflow=airflow,
        broker=heard.broker,
        executors=runs,
    )


def asks_airflow(spec: api.Spec, runs: Executors) -> bool:
    """Whether Airflow's own series are asked for: they are many.

    Where tasks run in the scheduler, how they flow is a matter of its memory.
    """
    return spec.tunes_slots or spec.tunes_parsing or (runs.local and spec.scheduler is not None)


def wanted(*, airflow: bool, cpu: bool = False) -> tuple[Signal, ...]:
    """What a look asks the metrics source for, but for what it asks about Airflow itself, and the past of tasks."""
    more = signals.CONTAINERS if airflow else (signals.CORES,) if cpu else ()
    return (*signals.MEMORY, signals.GROWTH, *more)


async def _refused(cluster: Cluster, namespace: str, workloads: tuple[Workload, ...]) -> tuple[Workload, ...]:
    """StatefulSets with the Events about pods they were refused, where those may be read."""
    wanted = {"reason": "FailedCreate", "regarding.kind": "StatefulSet"}
    try:
        events = await cluster.list(path("events.k8s.io/v1", "events", namespace), {}, wanted)
    except Refused:
        return workloads
    return tuple(inventory.refused(workload, events) for workload in workloads)


Counts = frozenset[tuple[str, int]]
"""Counts of killed processes above zero, by pod."""


async def process_kills(source: Prometheus, spec: api.Spec, namespace: str) -> Counts:
    """The one signal that is asked between turns."""
    found = await source.ask(signals.PROCESS_KILLS, prometheus.scope(spec.metrics, namespace))
    return frozenset((series.labels.get("pod", ""), int(series.value)) for series in found if series.value)


def counts(seen: Observation) -> Counts:
    """What of that signal a turn has seen."""
    pods = (pod for workload in seen.workloads for pod in workload.pods)
    return frozenset(
        (pod.name, int(kills.value)) for pod in pods if (kills := pod.usage.process_kills) is not None and kills.value
    )


PEAKS = {signals.HOURLY_PEAKS: MEBIBYTE, signals.HOURLY_CORES: 0.001}
"""What is asked of past hours, and the unit that it is kept in."""


async def past_peaks(
    source: Prometheus, spec: api.Spec, namespace: str, first: int, last: int, signal: Signal = signals.HOURLY_PEAKS
) -> dict[str, list[int | None]]:
    """The peaks of the hours from `first` to `last`, by the name of the workload."""
    found = await source.ask_hours(signal, prometheus.scope(spec.metrics, namespace), first, last)
    return {
        item.labels.get("workload", ""): [
            None if (size := item.values.get(hour)) is None else min(max(1, round(size / PEAKS[signal])), LARGEST)
            for hour in range(first, last + 1)
        ]
        for item in found
    }


async def past_tasks(
    source: Prometheus, spec: api.Spec, namespace: str, naming: str, first: int, last: int
) -> dict[str, list[int | None]]:
    """The most tasks at once of the hours from `first` to `last`, by Celery queue, and as `""` of all queues."""
    scope = replace(prometheus.scope(spec.metrics, namespace), naming=NAMINGS.get(naming, CHART))
    return {
        item.labels.get("queue", ""): [
            None if (count := item.values.get(hour)) is None else min(max(0, round(count)), LARGEST)
            for hour in range(first, last + 1)
        ]
        for item in await source.ask_hours(questions.HOURLY_TASKS, scope, first, last)
    }


async def _asked(
    source: Prometheus | None,
    spec: api.Spec,
    namespace: str,
    rounds: int,
    known: str,
    patience: float | None,
    *,
    airflow: bool,
) -> tuple[Values, str, str, str]:
    """The answers, what is wrong with those about containers, and with any about Airflow, and the naming of these."""
    if source is None:
        told = f"The metrics source {spec.metrics.source} is not one of the operator's (chart value metrics.sources)."
        return {}, told, told, ""
    try:
        scope = prometheus.scope(spec.metrics, namespace, rounds)
    except TunerError as error:
        return {}, str(error), str(error), ""
    answers, (of_airflow, naming) = await asyncio.gather(
        _all(source, wanted(airflow=airflow, cpu=spec.tunes_cpu), scope, patience),
        airflow_answers(source, spec, scope, known, patience) if airflow else _nothing(),
    )
    values: dict[str, tuple[Series, ...]] = {}
    problem = airflow_problem = ""
    for signal, answer in (answers | of_airflow).items():
        if isinstance(answer, TunerError):
            # One of CONTAINERS may be refused by itself (duplicate series in a join), and so may what reads very many
            # samples: then that one alone is absent.
            problem = problem or (str(answer) if signal in signals.MEMORY else "")
            alone = signal in APART
            airflow_problem = airflow_problem or ("" if alone else str(answer))
        else:
            values |= signals.parted(answer, signal)
    return values, problem, airflow_problem, naming


Answers = dict[Signal, tuple[Series, ...] | TunerError]


async def _all(source: Prometheus, wanted: Iterable[Signal], scope: Scope, patience: float | None) -> Answers:
    """The answers to all of them, or why there is none."""
    asked = [*wanted]
    answers = await asyncio.gather(*(source.ask(signal, scope, patience) for signal in asked), return_exceptions=True)
    found: Answers = {}
    for signal, answer in zip(asked, answers, strict=True):
        if isinstance(answer, BaseException) and not isinstance(answer, TunerError):
            raise answer
        found[signal] = answer
    return found


async def _nothing() -> tuple[Answers, str]:
    return {}, ""


async def airflow_answers(
    source: Prometheus, spec: api.Spec, scope: Scope, known: str, patience: float | None
) -> tuple[Answers, str]:
    """What Airflow says of itself, by the names that `telemetry` reads, and the naming in which it was asked for."""
    naming = NAMINGS.get(spec.metrics.naming or known)
    if spec.metrics.naming is None:
        # Where none is known, or it was of no use, it is looked at anew.
        question = questions.NAMED if naming else replace(questions.NAMED, lasts=0.0)
        try:
            found = await source.ask(question, scope, patience)
        except TunerError as error:
            if naming is None:
                return {question: error}, ""
        else:
            naming = chosen({item.labels.get("signal", ""): item.value for item in found}) or naming
    on = naming or CHART
    answers = await _all(source, questions.AIRFLOW, replace(scope, naming=on), patience)
    told: Answers = {
        signal: answer if isinstance(answer, TunerError) else signals.canonical(answer, on)
        for signal, answer in answers.items()
    }
    return told, naming.name if naming else ""


def named(prior: api.Status) -> str:
    """How Airflow's metrics were named; empty where that is to be seen anew, as they were of no use."""
    missing = any(item.type == "AirflowMetricsAvailable" and item.status == "False" for item in prior.conditions)
    return "" if missing else prior.metrics_naming


async def _current(
    cluster: Cluster,
    spec: api.Spec,
    namespace: str,
    workloads: tuple[Workload, ...],
    metrics: Metrics,
    now: datetime,
    patience: float,
) -> tuple[tuple[Workload, ...], Metrics]:
    """What is in use now, where the metrics source has no container series at all."""
    if not any(pod.running is not None for workload in workloads for pod in workload.living):
        return workloads, metrics
    found = await resource_metrics.ask(cluster, namespace, spec.airflow.labels, patience)
    limit = timedelta(seconds=spec.metrics.stale_after_seconds)
    filled, known = resource_metrics.filled(workloads, found, now, limit)
    if not known:
        why = found.problem or "it has nothing fresh about these pods"
        return workloads, replace(metrics, message=f"{metrics.message} Nor does metrics.k8s.io tell anything: {why}.")
    told = (
        f"{metrics.message} Only current memory and CPU of {counted(known, 'pod', 'pods')} are known, from "
        f"metrics.k8s.io: {resource_metrics.UNSEEN}."
    )
    return filled, Metrics(MetricsState.CURRENT, told)


async def _slots(
    brokers: Brokers | None, spec: api.Spec, namespace: str, workloads: Iterable[Workload]
) -> tuple[Mapping[str, Slots], str | None]:
    """What the Celery workers say of themselves, by pod, and what is wrong with the broker."""
    if spec.celery is None or brokers is None:
        return {}, None
    names = [
        pod.name
        for workload in workloads
        if workload.component == "worker"
        for pod in workload.living
        if pod.running is not None
    ]
    try:
        broker = await brokers.of(namespace, spec.celery.broker_secret_ref)
        return (await broker.workers(names) if names else {}), ""
    except TunerError as error:
        return {}, str(error)


def _trust(workloads: Iterable[Workload], values: Values, problem: str, now: datetime, limit: timedelta) -> Metrics:
    if problem:
        return Metrics(MetricsState.UNAVAILABLE, problem)
    pods = {pod.name for workload in workloads for pod in workload.pods}
    times = [series.value for series in values.get(signals.SAMPLED_AT.name, ()) if series.labels.get("pod", "") in pods]
    if not times:
        there = "of these pods" if pods else "to look for, as there are no pods"
        return Metrics(
            MetricsState.ABSENT,
            f"The metrics source answers, but has no container metrics {there} (container_memory_working_set_bytes of "
            "cAdvisor). Check that it scrapes the kubelets, and spec.metrics.matchLabels.",
        )
    newest = moment(max(times))
    if now - newest > limit:
        return Metrics(
            MetricsState.STALE,
            f"The newest container metrics are of {newest:%Y-%m-%d %H:%M:%S} UTC, more than "
            f"{limit.total_seconds():.0f} s ago (spec.metrics.staleAfterSeconds).",
            newest,
        )
    return Metrics(MetricsState.FRESH, "The metrics source answers, and its samples are fresh.", newest)


def _joined(
    workload: Workload, values: Values, slots: Mapping[str, Slots], now: datetime, limit: timedelta
) -> Workload:
    return replace(
        workload,
        pods=tuple(
            replace(pod, usage=_usage(pod, workload.container, values, now, limit), slots=slots.get(pod.name))
            for pod in workload.pods
        ),
    )


def _usage(pod: Pod, container: str, values: Values, now: datetime, limit: timedelta) -> Usage:
    sampled = _value(pod, container, values.get(signals.SAMPLED_AT.name, ()))
    if sampled is None or now - moment(sampled) > limit:
        return Usage()
    at = moment(sampled)

    def sample(name: str) -> Sample | None:
        value = _value(pod, container, values.get(name, ()))
        return None if value is None else Sample(value, at)

    return Usage(**{name: sample(name) for name in SAMPLES})


def _value(pod: Pod, container: str, found: tuple[Series, ...]) -> float | None:
    """The value for the living container: series of its predecessors linger for five minutes."""
    own = [item for item in found if (item.labels.get("pod"), item.labels.get("container")) == (pod.name, container)]
    exact = [item.value for item in own if container_id(item) == pod.container_id]
    if exact:
        return max(exact)
    unnamed = [item.value for item in own if not container_id(item)]
    return max(unnamed, default=None)


def container_id(item: Series) -> str:
    """The id of the container that a series is about. Empty where the series do not carry it.

    The cgroup ends with the container's id. cAdvisor's `name` is that id with containerd, and not with CRI-O.
    """
    found = _ID.search(item.labels.get("id", ""))
    return found[1] if found else item.labels.get("name", "")
