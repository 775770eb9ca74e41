"""The catalogue of signals: what is asked of Prometheus, in which unit, and what its absence means. Data, not code.

In the PromQL, `$container` stands for the matchers of this Airflow's containers, `$cluster` for those of the cluster,
`$airflow` for those of Airflow's own series, `$window` for the time that rates are averaged over, and `$rounds` for the
time that rates of parsing are: it holds whole rounds over the DAG files. `$tasks` stands for the matchers of the
containers of tasks that have pods of their own.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Template

from airflow_tuner.namings import CHART, NAMINGS, Naming


@dataclass(frozen=True, slots=True)
class Signal:
    """Something to ask for, as one instant query; each series of the answer is one value."""

    name: str
    promql: str
    unit: str
    absence: str
    """What it means when there is no sample."""
    parts: tuple[str, ...] = ()
    """Names of what one question asks for at once, told apart by the label `signal`; empty: it is one thing."""
    lasts: float = 0.0
    """Seconds for which an answer is as good as new: what is seen over hours is not asked in every turn."""
    rests: float = 0.0
    """Seconds for which it is not asked again after it failed: what is dear to answer is dear to try."""
    texts: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The question by the name of the naming, where that matters; `promql` is the chart's."""


@dataclass(frozen=True, slots=True)
class Series:
    """One value of one series."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose series are asked for, as matchers of PromQL."""

    container: str
    cluster: str
    airflow: str
    window: int
    """Seconds."""
    rounds: int
    """Seconds; not less than the window."""
    naming: Naming = CHART
    tasks: str = ""


def query(signal: Signal, scope: Scope) -> str:
    """The PromQL of a signal for one Airflow."""
    return Template(signal.texts.get(scope.naming.name, signal.promql)).substitute(
        container=scope.container,
        cluster=scope.cluster,
        airflow=scope.airflow,
        tasks=scope.tasks,
        window=f"{scope.window}s",
        rounds=f"{scope.rounds}s",
    )


def canonical(found: tuple[Series, ...], on: Naming) -> tuple[Series, ...]:
    """The answer by the names that `telemetry` reads. Of what several processes of one Airflow tell the most counts."""
    told: dict[tuple[tuple[str, str], ...], Series] = {}
    for item in found:
        labels = {on.labels.get(key, key): value for key, value in item.labels.items() if key not in on.senders}
        if "__name__" in labels:
            labels["__name__"] = on.names.get(labels["__name__"], labels["__name__"])
        same = tuple(sorted(labels.items()))
        if same not in told or told[same].value < item.value:
            told[same] = Series(labels, item.value)
    return tuple(told.values())


def parted(found: tuple[Series, ...], signal: Signal) -> dict[str, tuple[Series, ...]]:
    """The answer to a signal, by the names of its parts."""
    if not signal.parts:
        return {signal.name: found}
    return {name: tuple(item for item in found if item.labels.get("signal") == name) for name in signal.parts}


def named(name: str, asked: Callable[[Naming], str], unit: str, absence: str) -> Signal:
    """A signal about Airflow itself, whose question depends on the naming."""
    texts = {on.name: asked(on) for on in NAMINGS.values()}
    return Signal(name, texts[CHART.name], unit, absence, texts=texts)


def apart(questions: Mapping[str, str]) -> str:
    """Several questions as one."""
    return " or ".join(f'label_replace({promql},"signal","{name}","","")' for name, promql in questions.items())


# Memory of containers, from cAdvisor.

PROCESS_KILLS = Signal(
    "process_kills",
    "container_oom_events_total{$container}",
    "kills since the container started",
    "no kill of a single process can be seen; kills of whole containers still are, through the API server",
)
"""cAdvisor copies the kernel's count at its housekeeping, every 10 to 15 s. The series belongs to the container's id
and ends with it."""

PROCESS_KILLS_BEFORE = Signal(
    "process_kills_before",
    "container_oom_events_total{$container} offset 1h",
    "kills since the container started, one hour ago",
    "the container, or the metrics source, is younger: every kill it shows counts as recent",
)

PEAK = Signal(
    "peak",
    "container_memory_max_usage_bytes{$container}",
    "bytes",
    "the limit at which a process was killed is taken to be the limit in force",
)
"""The kernel's own high-water mark since the container started (memory.max_usage_in_bytes, memory.peak): it misses no
spike, and contains page cache."""

WORKING_SET = Signal(
    "working_set",
    "max_over_time(container_memory_working_set_bytes{$container}[1d])",
    "bytes",
    "a container without a limit gets none",
)

SAMPLED_AT = Signal(
    "sampled_at",
    "timestamp(container_memory_working_set_bytes{$container})",
    "seconds since the epoch",
    "there are no container metrics at all",
)
"""When the newest sample was taken: an instant query itself answers with the time it was asked."""

_RSS = "container_memory_rss{$container}"

ANONYMOUS = {
    "anonymous": f"max_over_time({_RSS}[$window])",
    "anonymous_day": f"max_over_time({_RSS}[1d])",
    "anonymous_before": f"{_RSS} offset 1d",
}
"""What each is: the most anonymous memory within the window and within a day, and what it was a day ago."""

ANONYMOUS_MEMORY = Signal(
    "anonymous_memory",
    apart(ANONYMOUS),
    "bytes",
    "the memory of a slot is taken to be that of an empty task, and no task is known to need more than the others",
    parts=(*ANONYMOUS,),
)
"""Anonymous memory: what a task holds, without the page cache that the kernel gives back."""

MEMORY = (PROCESS_KILLS, PROCESS_KILLS_BEFORE, PEAK, WORKING_SET, SAMPLED_AT, ANONYMOUS_MEMORY)
"""Asked in every turn."""


def _of_workloads(promql: str) -> str:
    """The most of each workload: the name of a pod is that, and what its ReplicaSet or StatefulSet adds."""
    pods = '"(.+?)(-[a-z0-9]{6,10}-[a-z0-9]{5}|-[0-9]+)"'
    return f'max by (workload) (label_replace({promql},"workload","$$1","pod",{pods}))'


HOURLY_PEAKS = Signal(
    "hourly_peaks",
    _of_workloads("max_over_time(container_memory_rss{$container}[1h])"),
    "bytes",
    "the history begins with the operator",
)
"""The most anonymous memory of each hour, by workload; asked as a range, hour by hour, of the time before the operator
looked."""

HOUR = 3600.0

EVEN = 0.97
"""How straight a rise must be: the correlation of floors with time. A line has 1, a step among five floors at most
0.95, a rise that halves every six hours 0.93."""


def growing(hours: float, floors: int) -> str:
    """Slope of the floors of anonymous memory of so many successive windows, where they rise evenly.

    A floor is the least of a window: what tasks take and give back is not in it. Five floors six hours apart compare
    the same hour of two days, so that no daily peak rises through all of them.
    """
    window, all_ = (f"{seconds:.0f}s" for seconds in (hours * HOUR, hours * HOUR * floors))
    found = f"min_over_time({_RSS}[{window}])[{all_}:{window}]"
    # The standard deviation of times so far apart: slope x that / the floors' own is their correlation with time.
    apart = hours * HOUR * math.sqrt((floors**2 - 1) / 12)
    straight = f"deriv({found}) * {apart / EVEN:.0f} > stddev_over_time({found})"
    return f"(({straight}) / {apart / EVEN:.0f}) and changes({found}) >= {floors - 1}"


LEAK_SPANS = {"growth_days": (6, 5), "growth_hours": (1, 6)}
"""Hours of a window, and how many windows."""

LEAK_DAYS = 2
"""Days of which each is compared with the one before, window by window."""
LEAK_WINDOWS = 4
"""Windows of a day."""
ALIKE = 0.5
"""Least share that the smallest of these rises must have of the mean: what grew on one day alone is no leak."""


def growing_by_day() -> str:
    """Slope of such floors against those of the same hours of the day before, where all of them rise alike.

    What memory does from day to night, as slots and tasks come and go, is in both and counts for nothing.
    """
    window, day = 24 // LEAK_WINDOWS, f"{24 * LEAK_DAYS}h"
    floor = f"min_over_time({_RSS}[{window}h])"
    found = f"({floor} - min_over_time({_RSS}[{window}h] offset 1d))[{day}:{window}h]"
    alike = f"min_over_time({found}) > {ALIKE} * avg_over_time({found})"
    whole = f"count_over_time({found}) >= {LEAK_DAYS * LEAK_WINDOWS}"
    return f"avg_over_time({found}) / {24 * HOUR:.0f} and {alike} and {whole}"


GROWTH_PARTS = {
    **{name: growing(hours, floors) for name, (hours, floors) in LEAK_SPANS.items()},
    "growth_by_day": growing_by_day(),
}

GROWTH = Signal(
    "growth",
    apart({name: f"({promql})" for name, promql in GROWTH_PARTS.items()}),
    "bytes per second",
    "no container's floor of anonymous memory rises evenly, or it is not known for long enough",
    parts=(*GROWTH_PARTS,),
    lasts=600.0,
)
"""It answers with the few that rise. It is asked every ten minutes, as it reads many samples and they change slowly."""

# What containers do now, from cAdvisor.

CPU = Signal(
    "cpu",
    "rate(container_cpu_usage_seconds_total{$container}[$window])",
    "cores",
    "slots are not raised",
)

CPU_OF_ROUNDS = Signal(
    "cpu_of_rounds",
    "rate(container_cpu_usage_seconds_total{$container}[$rounds])",
    "cores",
    "how DAG files are parsed is not changed",
)
"""Between two rounds parsing costs nothing: measured at 118 s between rounds, 60 s saw a fifteenth of the cost."""

THROTTLED = Signal(
    "throttled",
    "rate(container_cpu_cfs_throttled_periods_total{$container}[$window])"
    " / rate(container_cpu_cfs_periods_total{$container}[$window])",
    "share of the scheduling periods",
    "the container has no CPU limit, or was not throttled",
)

NODE_CPU = Signal(
    "node_cpu",
    '(sum by (instance) (rate(container_cpu_usage_seconds_total{id="/",$cluster}[$window]))'
    " / max by (instance) (machine_cpu_cores{$cluster}))"
    " * on (instance) group_right () (container_memory_working_set_bytes{$container} * 0 + 1)",
    "share of the node's cores, for each container on it",
    "only the container's own limit and throttling tell whether CPU is short",
)

CORES = Signal(
    "cores",
    apart({"cpu": CPU.promql, "throttled": THROTTLED.promql}),
    "cores, and share of the scheduling periods",
    "CPU is not changed",
    parts=("cpu", "throttled"),
)
"""Both as one question, where the policy names CPU and nothing asks for the four below."""

HOURLY_CORES = Signal(
    "hourly_cores",
    _of_workloads("max_over_time(rate(container_cpu_usage_seconds_total{$container}[$window])[1h:1m])"),
    "cores",
    "the history of CPU begins with the operator",
)
"""The most of each hour, averaged over the window as the operator itself sees it; asked where the policy names CPU."""

CONTAINERS = (CPU, CPU_OF_ROUNDS, THROTTLED, NODE_CPU)
"""Asked where slots or parsing are tuned, or tasks run in a scheduler that the policy names."""

# Pods of the KubernetesExecutor's tasks, from cAdvisor and, where it is there, kube-state-metrics.

DAYS = 14
"""Days that are asked for: two weeks hold a weekly peak twice, and most sources keep 15 days."""

STEM = "(.+)-[a-z0-9]{8}"
"""The name of a task's pod: what is made of its DAG and task, and eight random characters."""

USUAL = 0.9
"""Share of a task's runs that stayed below what counts as usual."""

MOST_TASKS = 300
"""Most tasks that one answer tells, those whose pods run most; beside as many that were killed."""


def _of_pods(function: str, series: str, days: int = DAYS) -> str:
    """One value for each pod that there was."""
    whole = series if "{" in series else f"{series}{{$tasks}}"
    return f"max by (pod) ({function}({whole}[{days}d]))"


def _by_task(how: str, pods: str, of: str = "") -> str:
    return f'{how} by (stem) ({of}label_replace({pods},"stem","$$1","pod","{STEM}"))'


def _set(kind: str, days: int) -> str:
    """A request or a limit of memory, of each pod."""
    told = _of_pods("max_over_time", f'kube_pod_container_resource_{kind}{{resource="memory",$tasks}}', days)
    known = {"limits": "container_spec_memory_limit_bytes"}
    return f"({told} or {_of_pods('max_over_time', known[kind], days)})" if kind in known else told


def _lately(kind: str) -> str:
    """The same of each task: of its pods of a day, else of all."""
    return " or ".join(_by_task("max", _set(kind, days)) for days in (1, DAYS))


_RUN = _of_pods("max_over_time", "container_memory_rss")
_KILLED = f"({_of_pods('max_over_time', 'container_oom_events_total')} > 0)"
_LOOKS = _by_task("sum", _of_pods("count_over_time", "container_memory_rss"))

OF_TASKS = {
    "task_runs": _by_task("count", _RUN),
    "task_looks": _LOOKS,
    "task_usual": _by_task("quantile", _RUN, f"{USUAL},"),
    "task_most": _by_task("max", _RUN),
    "task_peak": _by_task("max", _of_pods("max_over_time", "container_memory_max_usage_bytes")),
    "task_kills": _by_task("count", _KILLED),
    "task_killed_at": _by_task("max", f"({_set('limits', DAYS)} and on (pod) {_KILLED})"),
    "task_limit": _lately("limits"),
    "task_request": _lately("requests"),
}
"""What each is, by what the names of a task's pods begin with: pods, samples of them, the peak of anonymous memory that
the usual share of them stayed below, the largest, the kernel's own largest (page cache included), pods in which
something was killed for memory, the largest limit of those, and limit and request of its pods of late."""

TASK_RUNS = Signal(
    "task_runs",
    f"({apart(OF_TASKS)}) and on (stem) (topk({MOST_TASKS}, {_LOOKS}) or topk({MOST_TASKS}, {OF_TASKS['task_kills']}))"
    f' or label_replace(count({OF_TASKS["task_runs"]}),"signal","task_groups","","")',
    "as each is named",
    "nothing is recommended for pods of tasks",
    parts=(*OF_TASKS, "task_groups"),
    lasts=3600.0,
    rests=900.0,
)
"""It is asked once an hour where the policy names `tasks`, as it reads the samples of two weeks."""
